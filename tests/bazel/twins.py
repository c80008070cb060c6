"""The same workspace twice: with BUILD files for a real Bazel, with BUILD.models files for modelbuild."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.command_line import CommandLine

OUTPUTS = "modelbuild-out"
_BAZEL_OUTPUTS = re.compile(rb"bazel-out/[a-z0-9]+-(fastbuild|opt-exec-\w+|opt)/bin")
_FILE = re.compile(r"^-- (\S+) --\n", re.MULTILINE)
_NAME = re.compile(r"^\s*\w+\(name = \"([^\"]+)\"", re.MULTILINE)
_NO_NAME = re.compile(r":|(^|/)(\.\.?)?(/|$)")
"""What Bazel takes in no target pattern: one such pattern, and it builds nothing."""
_GROUP = re.compile(r"^package_group\(name = \"([^\"]+)\"", re.MULTILINE)
_ALSO = re.compile(r"^# also: (.*)$", re.MULTILINE)
BUILD = "BUILD"


def unpack(archive: str) -> dict[str, str]:
    """The files of a text archive: each after a line `-- path --`.

    `-- wrong/*/BUILD --` stands for one package per line, `wrong/1`, `wrong/2`, ..., so that an error in one
    does not touch the others; in a line, `⏎` is a line end.
    """
    parts = _FILE.split(archive)
    files: dict[str, str] = {}
    for path, text in zip(parts[1::2], parts[2::2], strict=True):
        if "*" not in path:
            files[path] = text
            continue
        for number, line in enumerate(text.splitlines(), 1):
            files[path.replace("*", str(number))] = line.replace("⏎", "\n") + "\n"
    return files


def labels(files: Mapping[str, str]) -> list[str]:
    """What the BUILD files declare, as far as it stands there with its name, and what they ask for beside it."""
    found = []
    for path, text in files.items():
        package, _, name = path.rpartition("/")
        if name == BUILD:
            groups = set(_GROUP.findall(text))
            names = [
                target
                for target in _NAME.findall(text)
                if not _NO_NAME.search(target) and target not in groups
            ]
            found += [f"//{package}:{target}" for target in names]
            found += [label for line in _ALSO.findall(text) for label in line.split()]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Outcome:
    """One build: what each label made (path below the root -> content), and whose commands ran."""

    built: Mapping[str, Mapping[str, bytes]]
    executed: frozenset[str]
    said: str


class Twins:
    """Two workspaces with the same files. `close` ends the Bazel server."""

    def __init__(self, directory: Path) -> None:
        self.theirs = directory / "theirs"
        self.ours = directory / "ours"
        self._state = directory / "bazel"
        self.theirs.mkdir()
        self.ours.mkdir()
        (self.theirs / "WORKSPACE").touch()
        (self.ours / "modelbuild.toml").touch()

    def paths(self, path: str) -> tuple[Path, Path]:
        """A file in both; a BUILD file is named as each calls it."""
        ours = f"{path}.models" if path.rpartition("/")[2] == BUILD else path
        return self.theirs / path, self.ours / ours

    def put(self, files: Mapping[str, str]) -> None:
        """Write files in both."""
        for path, text in files.items():
            theirs, ours = self.paths(path)
            for place in (theirs, ours):
                place.parent.mkdir(parents=True, exist_ok=True)
            theirs.write_text(text)
            ours.write_text(text.replace('"BUILD"', '"BUILD.models"'))

    def bazel(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Bazel to its end."""
        return subprocess.run(
            ["bazel", "--nohome_rc", f"--output_user_root={self._state}", *arguments],
            cwd=self.theirs,
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )

    def close(self) -> None:
        """End the server and take back the modes that Bazel gave its outputs."""
        self.bazel("shutdown")
        subprocess.run(["chmod", "-R", "u+w", str(self._state)], check=False)
        shutil.rmtree(self._state, ignore_errors=True)

    def build_theirs(self, targets: Iterable[str]) -> Outcome:
        """Build with Bazel, everything that can be built."""
        log = self._state.with_suffix(".json")
        log.unlink(missing_ok=True)
        done = self.bazel(
            "build",
            "--keep_going",
            "--noshow_progress",
            "--color=no",
            "--build_event_publish_all_actions",
            f"--build_event_json_file={log}",
            "--",
            *targets,
        )
        events = [json.loads(line) for line in log.read_text().splitlines()]
        return _Events(events, self.theirs).outcome(done.stderr)

    def build_ours(self, targets: Iterable[str]) -> Outcome:
        """Build with modelbuild, everything that can be built."""
        log = self.ours.parent / "events.json"
        log.unlink(missing_ok=True)
        done = CommandLine(self.ours).run(
            "build", "--keep-going", "--events", str(log), "--json", "--", *targets
        )
        events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        finished = [event for event in events if event["event"] == "target_finished" and event["built"]]
        built = {
            event["label"]: {
                path.replace("BUILD.models", BUILD): content(self.ours / path).replace(
                    b"BUILD.models", b"BUILD"
                )
                for path in event["files"]
            }
            for event in finished
        }
        executed = frozenset(
            event["label"]
            for event in events
            if event["event"] == "action_finished" and event["result"] == "executed"
        )
        return Outcome(built, executed, done.stderr)


class _Events:
    """Bazel's build events."""

    def __init__(self, events: list[dict[str, Any]], root: Path) -> None:
        self._events = events
        self._sets = {
            e["id"]["namedSet"]["id"]: e["namedSetOfFiles"] for e in events if "namedSetOfFiles" in e
        }
        self._root = root

    def outcome(self, said: str) -> Outcome:
        built: dict[str, dict[str, bytes]] = {}
        executed = set()
        for event in self._events:
            if (target := event["id"].get("targetCompleted")) and event.get("completed", {}).get("success"):
                files: dict[str, bytes] = {}
                for group in event["completed"].get("outputGroup", ()):
                    if group["name"] == "default":
                        for reference in group["fileSets"]:
                            self._add(reference["id"], files)
                built[target["label"]] = files
            action = event["id"].get("actionCompleted")
            if action and event["action"].get("type") == "Genrule":
                executed.add(action["label"])
        return Outcome(built, frozenset(executed), said)

    def _add(self, identity: str, files: dict[str, bytes]) -> None:
        found = self._sets[identity]
        for file in found.get("files", ()):
            prefix = OUTPUTS if file.get("pathPrefix") else ""
            path = f"{prefix}/{file['name']}".lstrip("/")
            files[path] = in_our_words(content(Path(_text(unquote(file["uri"].removeprefix("file://"))))))
        for reference in found.get("fileSets", ()):
            self._add(reference["id"], files)


def _text(name: str) -> str:
    """A name as it was written: in its addresses Bazel takes each byte of one for a character."""
    return name.encode("latin-1").decode()


def content(path: Path) -> bytes:
    """The bytes of a file; of a directory, the names in it."""
    if path.is_dir():
        return "\n".join(sorted(str(name.relative_to(path)) for name in path.rglob("*"))).encode()
    return path.read_bytes()


def in_our_words(content: bytes) -> bytes:
    """Content that names Bazel's directory of outputs, with ours in its place."""
    return _BAZEL_OUTPUTS.sub(OUTPUTS.encode(), content)
