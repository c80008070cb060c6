"""The matrix of README: every device, on an empty cache.

    python -m benchmarks.matrix [--warm] [--page FILE]

Builds //targets:release on an empty cache in a temporary folder, tool environments included, then once more, and
writes benchmarks/results/matrix.json. Packages come out of uv's cache where that has them: what is measured is the
build, not a network. --warm: on the workspace's own cache, for the table without the time. --page: the page, too; the
top of it in a browser 1,280 pixels wide is docs/pictures/matrix.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.collect import CACHE
from benchmarks.graph_speed import BIN
from benchmarks.readme import RESULTS, ROOT

TARGET = "//targets:release"


def matrix(target: str, cache: Path, *flags: str) -> tuple[dict[str, Any], float]:
    """The JSON document of one `modelbuild matrix`, and its seconds. Broken cells are an error."""
    started = time.monotonic()
    command = [str(BIN / "modelbuild"), "matrix", target, "--json", "--cache-dir", str(cache), *flags]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.monotonic() - started
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document, seconds


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    page = ("--html", str(arguments.page)) if arguments.page else ()
    if arguments.warm:
        document, _ = matrix(TARGET, CACHE, *page)
        document |= {"cold_s": None, "again_s": None}
    else:
        with tempfile.TemporaryDirectory(prefix="matrix-", dir=CACHE.parent) as folder:
            cache = Path(folder) / "cache"
            document, cold = matrix(TARGET, cache, *page)
            _, again = matrix(TARGET, cache)
            document |= {"cold_s": round(cold, 1), "again_s": round(again, 2)}
    (RESULTS / "matrix.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
