"""Every command of README and the guides is run in a workspace of its own, and says what is written there."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, SHELL_FENCES, blocks, commands

GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("docs/guides/*.md"))]
_TIME = re.compile(r"\b\d[\d.,]* ?(?:ms|s|min|h)(?: \d+ (?:s|min))?\b")
_CRITICAL_PATH = re.compile(r" \(critical path [^)]*\)")
_HOST = re.compile(r"(?<=T ago in T) on [\w.\-]+")
_BYTES_FREE = re.compile(r"\b[\d.]+ GB\b")


def normal(line: str) -> str:
    """A line without what differs from run to run: durations, the name of the machine."""
    line = _TIME.sub("T", _CRITICAL_PATH.sub("", line))
    return _BYTES_FREE.sub("N GB", _HOST.sub("", line)).rstrip()


def matches(expected: list[str], actual: list[str]) -> bool:
    """Whether the lines agree; a line `...` stands for any number of them, `...` in a line for any text."""
    if not expected:
        return not actual
    if expected[0] == "...":
        return any(matches(expected[1:], actual[at:]) for at in range(len(actual) + 1))
    return bool(actual) and agrees(expected[0], actual[0]) and matches(expected[1:], actual[1:])


def agrees(expected: str, actual: str) -> bool:
    """Whether two lines do."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("..."))), actual) is not None


def run(directory: Path, command: str, more: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Run one command as a person's shell would; where the shell is then, and what was printed.

    more: variables of the shell.
    """
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        **more,
    }
    place = directory.parent / f".{directory.name}.place"
    completed = subprocess.run(
        ["/bin/bash", "-c", f"{command}\npwd > '{place}'"],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
        check=False,
    )
    assert "Traceback" not in completed.stdout, completed.stdout
    return Path(place.read_text().strip()), completed.stdout.splitlines()


def follow(document: Path, directory: Path, *marks: str, environment: Mapping[str, str] | None = None) -> int:
    """Do what the document says, from top to bottom; how many commands that were. marks: of what is run."""
    done = 0
    for block in blocks(document):
        if block.mark.startswith("file: "):
            path = directory / block.mark.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.mark in marks:
            for each in commands(block):
                directory, printed = run(directory, each.command, environment or {})
                expected = [normal(line) for line in each.expected]
                actual = [normal(line) for line in printed]
                assert matches(expected, actual), (
                    f"{document.name}:{block.line}: `{each.command}` printed\n" + "\n".join(printed)
                )
                done += 1
    return done


def has(document: Path, mark: str) -> bool:
    return any(block.mark == mark for block in blocks(document))


@pytest.mark.parametrize("document", [d for d in GUIDES if has(d, "run")], ids=lambda d: d.name)
def test_commands_do_what_the_document_says(document: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    assert follow(document, workspace, "run") > 0


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in GUIDES if has(d, "run: slow")], ids=lambda d: d.name)
def test_slow_commands_do_what_the_document_says(document: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    assert follow(document, workspace, "run", "run: slow") > 0


@pytest.mark.parametrize("document", GUIDES, ids=lambda d: d.name)
def test_every_shell_block_says_whether_it_is_run(document: Path) -> None:
    unmarked = [
        block.line
        for block in blocks(document)
        if block.language in SHELL_FENCES
        and not re.fullmatch(r"run|run: slow|run: installed|not run: \S.*|filled: .*", block.mark)
    ]
    assert not unmarked, (
        f"{document.relative_to(ROOT)}: say `run` or `not run: REASON` above lines {unmarked}"
    )


def test_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    document = tmp_path / "wrong.md"
    document.write_text("<!-- file: a -->\n```\nx\n```\n\n<!-- run -->\n```console\n$ cat a\ny\n```\n")
    workspace = tmp_path / "w"
    workspace.mkdir()
    with pytest.raises(AssertionError, match="`cat a` printed"):
        follow(document, workspace, "run")


def test_the_environment_of_documents_is_this_one() -> None:
    assert os.access(Path(sys.executable).parent / "modelbuild", os.X_OK)
