"""Gathers what README.md shows of the example pipeline, after `make build`, into benchmarks/results.

    python -m benchmarks.collect [--events FILE]

Writes quality.md and quality-digits.md (what the `quality` targets made), session.json (commands and what they printed),
machine.json, and, from a file that `modelbuild build --events FILE` wrote on a cold cache, the pictures.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.graph_speed import BIN, COMMANDS, installed
from benchmarks.picture import draw
from benchmarks.readme import RESULTS, ROOT

CACHE = ROOT / "cache"
QUALITY = {"quality": "//targets:quality", "quality-digits": "//targets/digits:quality"}
"""File in benchmarks/results -> the target that makes it."""
SESSION = (
    "modelbuild build //targets:drone-int4",
    'modelbuild run //targets:drone-int4 -- "climb to 40 m, then hold for ten seconds"',
    "sed -i 's/temperature = 2.0/temperature = 3.0/' targets/BUILD.models",
    "modelbuild explain //targets:student //targets:drone-int4",
)
"""Run in a copy of the workspace that uses this one's cache, and has built the first once before."""
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def versions() -> dict[str, str]:
    """Tool -> version, of those that are installed."""
    found = {}
    for tool in COMMANDS:
        path = installed(tool)
        if path is None:
            continue
        completed = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        match = _VERSION.search(completed.stdout + completed.stderr)
        found[tool] = match[0] if match else ""  # Debian's Bazel says `no_version`.
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "versions": versions(),
    }


def printed(command: str, directory: Path = ROOT) -> list[str]:
    """The lines of one command that must succeed, stderr and stdout as a terminal shows them."""
    completed = subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=directory,
        env={
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "MODELBUILD_CACHE_DIR": str(CACHE),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        raise SystemExit(f"{command} failed:\n{completed.stdout}")
    return [line.replace(f" on {platform.node()}", "") for line in completed.stdout.splitlines()]


def session() -> list[dict[str, Any]]:
    """The commands of SESSION and what they print."""
    with tempfile.TemporaryDirectory(prefix="modelbuild-session-") as folder:
        root = Path(folder) / "workspace"
        for name in ("targets", "toolchains"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "modelbuild.toml", root)
        printed(SESSION[0], root)
        return [{"command": command, "lines": printed(command, root)} for command in SESSION]


def write(name: str, value: Any) -> None:
    """One file of benchmarks/results."""
    (RESULTS / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """Collect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=Path)
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    write("machine.json", machine())
    for name, target in QUALITY.items():
        printed(f"modelbuild build {target}")
        made = ROOT / "modelbuild-out" / target.removeprefix("//").replace(":", "/") / "quality.md"
        (RESULTS / f"{name}.md").write_text(made.read_text())
    write("session.json", session())
    if arguments.events:
        draw(arguments.events, ROOT / "docs/pictures")


if __name__ == "__main__":
    main()
