"""Measures everything that README.md shows, and fills it in: `make bench`. Takes a quarter of an hour.

    python -m benchmarks.run [--no-pictures]

The pictures are of a build on an empty cache, which trains the example from nothing; it goes into a temporary
folder, and the workspace's own cache is left alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.graph_speed import BIN
from benchmarks.picture import draw
from benchmarks.readme import RESULTS, ROOT

TARGET = "//targets:drone-int4"


def cold_build(folder: Path) -> None:
    """Build the example on an empty cache and draw it."""
    events = folder / "events.jsonl"
    command = [
        str(BIN / "modelbuild"),
        "build",
        TARGET,
        "--cache-dir",
        str(folder / "cache"),
        "--events",
        str(events),
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    draw(events, ROOT / "docs/pictures")


def main() -> None:
    """Measure, collect, fill in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-pictures", action="store_true")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if not arguments.no_pictures:
        with tempfile.TemporaryDirectory(prefix="modelbuild-cold-") as folder:
            cold_build(Path(folder))
    python = sys.executable
    speed = RESULTS / "graph_speed.json"
    for words in (
        ["benchmarks.graph_speed", "--json", str(speed)],
        ["benchmarks.collect"],
        ["benchmarks.readme"],
    ):
        subprocess.run([python, "-m", *words], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
