"""Null build, one leaf changed and cold build of N trivial commands, side by side with installed peers.

    python -m benchmarks.graph_speed [--sizes 10,1000,10000] [--runs 5] [--tools modelbuild,ninja] [--json FILE]

Every tool builds the same chains with the same commands on the same disk; runs are interleaved tool by tool,
because machines are noisy; medians are shown, and ratios to modelbuild in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.chains import WRITERS, write_sources

JOBS = str(len(os.sched_getaffinity(0)))
BIN = Path(sys.executable).parent
COMMANDS = {
    "modelbuild": [str(BIN / "modelbuild"), "build", "//..."],
    "ninja": ["ninja", "-j", JOBS],
    "make": ["make", "-s", "-j", JOBS],
    "doit": ["doit", "-n", JOBS],
    "bazel": ["bazel", "build", "--noshow_progress", "//..."],
    "snakemake": ["snakemake", "--cores", JOBS, "--quiet", "all"],
    "dvc": ["dvc", "repro", "-q"],
}
LIMITS = {"dvc": 100, "snakemake": 1000}
"""Larger graphs take these minutes, and a benchmark should end."""


def installed(tool: str) -> str | None:
    """Where the tool is, in this environment or on PATH."""
    beside = BIN / COMMANDS[tool][0]
    return str(beside) if beside.exists() else shutil.which(COMMANDS[tool][0])


def timed(command: list[str], directory: Path) -> float:
    """Wall seconds of one run that must succeed."""
    started = time.perf_counter()
    completed = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - started
    if completed.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{completed.stdout[-2000:]}{completed.stderr[-2000:]}")
    return elapsed


def measure(size: int, tools: list[str], runs: int, root: Path) -> dict[str, dict[str, list[float]]]:
    """tool -> scenario -> wall seconds of each run."""
    results: dict[str, dict[str, list[float]]] = {}
    commands = {}
    for tool in tools:
        directory = root / f"{tool}-{size}"
        write_sources(directory, size)
        WRITERS[tool](directory, size)
        if tool == "dvc":
            subprocess.run([str(installed("dvc")), "init", "--no-scm", "-q"], cwd=directory, check=True)
        commands[tool] = [str(installed(tool)), *COMMANDS[tool][1:]]
        results[tool] = {"cold": [timed(commands[tool], directory)], "null": [], "leaf": []}
    for run in range(runs):
        for tool in tools:
            directory = root / f"{tool}-{size}"
            results[tool]["null"].append(timed(commands[tool], directory))
            (directory / "in0.txt").write_text(f"changed {run}\n")
            results[tool]["leaf"].append(timed(commands[tool], directory))
    return results


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10,1000,10000")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tools", default=",".join(COMMANDS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tools = [tool for tool in arguments.tools.split(",") if installed(tool)]
    missing = [tool for tool in arguments.tools.split(",") if not installed(tool)]
    print(f"{JOBS} cores; measured: {', '.join(tools)}; not installed: {', '.join(missing) or 'none'}")
    report: dict[str, dict[str, dict[str, float]]] = {}
    for size in (int(text) for text in arguments.sizes.split(",")):
        chosen = [tool for tool in tools if size <= LIMITS.get(tool, size)]
        with tempfile.TemporaryDirectory(prefix="modelbuild-bench-") as root:
            results = measure(size, chosen, arguments.runs, Path(root))
        medians = {
            tool: {scenario: statistics.median(times) for scenario, times in scenarios.items()}
            for tool, scenarios in results.items()
        }
        report[str(size)] = medians
        print(
            f"\n{size} actions       cold s      null s   leaf s    (null and leaf: median of {arguments.runs})"
        )
        ours = medians.get("modelbuild")
        for tool, row in medians.items():
            ratio = (
                f"   null x{row['null'] / ours['null']:.2f} of modelbuild"
                if ours and tool != "modelbuild"
                else ""
            )
            print(f"  {tool:<14} {row['cold']:>9.3f}   {row['null']:>9.3f} {row['leaf']:>8.3f}{ratio}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
