"""Feeds events to the real console, to look at it: recorded ones (`--events FILE`) or a made-up build.

python tests/cli/replay_events.py [--speed 4] [--fail] [EVENTS.jsonl]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelbuild import events
from modelbuild.cli.console import ConsoleOptions, open_console
from modelbuild.cli.terminal import Environment, Terminal
from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    AnalysisFinished,
    BuildFinished,
    BuildStarted,
    Event,
    TargetFinished,
)

KEY = "0" * 64


def decode(row: dict[str, Any]) -> Event:
    """The event that `--events` wrote as `row`."""
    classes = {events.event_name(c): c for c in Event.__subclasses__()}
    kind = classes[row["event"]]
    fields = {f.name for f in dataclasses.fields(kind)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k in fields}
    return kind(**values)  # type: ignore[arg-type]


def made_up(*, fail: bool = False, log: str = "") -> list[Event]:
    """A pipeline of a few seconds, and a long one beside it."""
    rows: list[Event] = [
        BuildStarted(0.0, "build", ("//targets:drone-int4",), 2, "0.1.0"),
        AnalysisFinished(0.05, 3, 14, 12, from_snapshot=False),
    ]
    rows += [
        ActionFinished(0.06, n, f"//targets:cached{n}", "Genrule", KEY, "local_hit", 0.0, 0) for n in (0, 1)
    ]
    rows.append(ActionStarted(0.1, 2, "//targets:missions", "Dataset", "", "inputs: missions.py", 2.0))
    rows.append(
        ActionStarted(
            0.1,
            3,
            "//targets/a/rather/long/package/name:tokenizer-of-the-teacher",
            "TrainTokenizer",
            "learning 512 merges",
            "no entry",
            None,
        )
    )
    rows.append(
        ActionFinished(
            1.3, 2, "//targets:missions", "Dataset", KEY, "executed", 1.2, 50 << 20, "inputs: missions.py"
        )
    )
    rows.append(ActionStarted(1.4, 4, "//targets:teacher", "Train", "", "inputs: dataset", None))
    rows += [
        ActionProgress(
            1.4 + s / 100, 4, s, 400, "steps", {"loss": 5.0 / (1 + s / 50), "tokens_per_s": 12345.6 + s}
        )
        for s in range(10, 401, 10)
    ]
    rows.append(
        ActionFinished(
            3.0,
            3,
            "//targets/a/rather/long/package/name:tokenizer-of-the-teacher",
            "TrainTokenizer",
            KEY,
            "executed",
            2.9,
            50 << 20,
            "",
            dependencies=(2,),
        )
    )
    rows.append(
        ActionFinished(
            5.5,
            4,
            "//targets:teacher",
            "Train",
            KEY,
            "executed",
            4.1,
            900 << 20,
            "inputs: dataset",
            dependencies=(2, 3),
        )
    )
    if fail:
        rows.append(ActionStarted(5.5, 5, "//targets:student", "Distill", "", "no entry", None))
        rows.append(
            ActionFinished(
                6.5,
                5,
                "//targets:student",
                "Distill",
                KEY,
                "failed",
                1.0,
                0,
                "",
                "the tool exited with 1",
                log,
                (4,),
            )
        )
    rows.append(TargetFinished(6.6, "//targets:drone-int4", not fail, ("README.md", "targets")))
    rows.append(
        BuildFinished(
            6.6, 3, 2, 0, 6, int(fail), 6.6, int(fail), 6.0, ("//targets:drone-int4",) if fail else ()
        )
    )
    return sorted(rows, key=lambda event: event.time_s)


def replay(
    rows: Iterator[Event] | list[Event], terminal: Terminal, root: Path, options: ConsoleOptions, speed: float
) -> None:
    """Give each event to the console when its time has come."""
    start = time.monotonic()
    with open_console(terminal, root, options) as (sink, _):
        for event in rows:
            time.sleep(max(0.0, event.time_s / speed - (time.monotonic() - start)))
            sink(event)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("events", nargs="?")
    arguments = parser.parse_args()
    if arguments.events:
        recorded: list[Event] = [
            decode(json.loads(line)) for line in Path(arguments.events).read_text().splitlines()
        ]
    else:
        with tempfile.NamedTemporaryFile("w", suffix=".log", delete=False) as stream:
            stream.write("".join(f"step {n}\n" for n in range(40)) + "error: the loss is not a number\n")
        recorded = made_up(fail=arguments.fail, log=stream.name)
    replay(
        recorded,
        Terminal(Environment.read(os.environ)),
        Path.cwd(),
        ConsoleOptions(verbose=arguments.verbose),
        arguments.speed,
    )
    sys.exit(0)
