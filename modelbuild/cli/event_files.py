"""Sinks that write files: `--events` as JSON lines, `--profile` as a Chrome trace, `--json` at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from modelbuild.cli.board import Board
from modelbuild.errors import EnvironmentFailure, UsageError
from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    BuildFinished,
    Event,
    to_json,
)

RESULT_SCHEMA = 1
_MICROSECONDS = 1e6


def open_for_writing(path: str, flag: str) -> TextIO:
    """A file that a flag names. Raises UsageError when it cannot be written, and for `-`: stdout is taken."""
    _refuse_dash(path, flag)
    try:
        # What is no text in the name of a file becomes an escape of JSON.
        return open(path, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise _not_writable(path, flag, error) from error


def check_writable(path: str, flag: str) -> None:
    """Raises UsageError as open_for_writing would; what is in the file stays."""
    _refuse_dash(path, flag)
    existed = os.path.exists(path)
    try:
        with open(path, "a", encoding="utf-8"):
            pass
        if not existed:
            os.unlink(path)
    except OSError as error:
        raise _not_writable(path, flag, error) from error


def _refuse_dash(path: str, flag: str) -> None:
    if path == "-":
        raise UsageError(f"`{flag}` takes a file, not `-`", hint=f"`{flag} /dev/stderr` shows it")


def _not_writable(path: str, flag: str, error: OSError) -> UsageError:
    return UsageError(f"`{flag} {path}` cannot be written", notes=(error.strerror or str(error),))


@contextmanager
def _writing(stream: TextIO) -> Iterator[None]:
    """A report that is cut short must not pass for a whole one."""
    try:
        yield
    except OSError as error:
        notes = (error.strerror or str(error),)
        raise EnvironmentFailure(f"`{stream.name}` cannot be written", notes=notes) from error


class JsonlSink:
    """One JSON object a line, as events happen; the schema is that of modelbuild.events."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if self._stream.closed:  # What went wrong after the last event is told elsewhere.
            return
        line = json.dumps(to_json(event), separators=(",", ":"), ensure_ascii=False)
        with _writing(self._stream):
            self._stream.write(line + "\n")
            if isinstance(event, BuildFinished):
                self._stream.close()


class ProfileSink:
    """A Chrome trace: one lane for each action that runs at the same time as others, one for cache hits."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rows: list[dict[str, Any]] = []
        self._lanes: list[int | None] = []
        self._started: dict[int, ActionStarted] = {}

    def __call__(self, event: Event) -> None:
        """Take one event; the file is written at the last one."""
        match event:
            case ActionStarted():
                self._started[event.action] = event
                if None in self._lanes:
                    self._lanes[self._lanes.index(None)] = event.action
                else:
                    self._lanes.append(event.action)
            case ActionFinished():
                self._finish(event)
            case ActionProgress():
                self._count(event)
            case BuildFinished():
                self._write(event)
            case _:
                pass

    def _finish(self, event: ActionFinished) -> None:
        started = self._started.pop(event.action, None)
        arguments = {
            "label": event.label,
            "result": event.result,
            "key": event.key,
            "peak_rss_bytes": event.peak_rss_bytes,
            "reason": event.reason,
        }
        row: dict[str, Any] = {
            "name": f"{event.mnemonic} {event.label}",
            "cat": event.result,
            "pid": 1,
            "args": arguments,
        }
        if started is None:
            row |= {"ph": "i", "s": "t", "tid": 0, "ts": event.time_s * _MICROSECONDS}
        else:
            lane = self._lanes.index(event.action)
            self._lanes[lane] = None
            duration = event.time_s - started.time_s
            row |= {
                "ph": "X",
                "tid": lane + 1,
                "ts": started.time_s * _MICROSECONDS,
                "dur": duration * _MICROSECONDS,
            }
            if event.result == "failed":
                row["cname"] = "terrible"
        self._rows.append(row)

    def _count(self, event: ActionProgress) -> None:
        started = self._started.get(event.action)
        values = {name: value for name, value in event.metrics.items() if not isinstance(value, str)}
        if started is not None:
            self._rows += [
                {
                    "ph": "C",
                    "pid": 1,
                    "ts": event.time_s * _MICROSECONDS,
                    "name": f"{name} {started.label}",
                    "args": {name: value},
                }
                for name, value in values.items()
            ]

    def _write(self, event: BuildFinished) -> None:
        if self._stream.closed:  # It could not be written, and that ended the build a second time.
            return
        names = ["cache hits", *(f"slot {lane + 1}" for lane in range(len(self._lanes)))]
        header: list[dict[str, Any]] = [
            {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "modelbuild"}}
        ]
        for lane, name in enumerate(names):
            common = {"ph": "M", "pid": 1, "tid": lane}
            header += [
                common | {"name": "thread_name", "args": {"name": name}},
                common | {"name": "thread_sort_index", "args": {"sort_index": lane}},
            ]
        other = {
            "executed": event.executed,
            "wall_s": event.wall_s,
            "critical_path_s": event.critical_path_s,
            "exit_code": event.exit_code,
        }
        with _writing(self._stream), self._stream:
            document = {"traceEvents": header + self._rows, "displayTimeUnit": "ms", "otherData": other}
            json.dump(document, self._stream)
            self._stream.write("\n")


class ResultSink:
    """Folds the events into the document that `--json` prints."""

    def __init__(self) -> None:
        self._board = Board()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._board.add(event)

    def document(self, error: str = "") -> dict[str, Any]:
        """Targets, tests, failures, counts and the exit code.

        error: why there is no more than this, or what is wrong in BUILD files that the build went on without.
        skipped: not built; unreached: those of them of which nothing failed, since the build stopped before;
        incompatible: the platform cannot have them.
        """
        board, finished = self._board, self._board.finished
        return {
            "schema": RESULT_SCHEMA,
            "command": board.started.command if board.started else "",
            "exit_code": finished.exit_code if finished else None,
            "wall_s": finished.wall_s if finished else None,
            "counts": {
                "executed": finished.executed if finished else 0,
                "local_hits": finished.local_hits if finished else 0,
                "remote_hits": finished.remote_hits if finished else 0,
                "unchanged": finished.unchanged if finished else 0,
                "failed": finished.failed if finished else 0,
            },
            "targets": [{"label": t.label, "built": t.built, "files": list(t.files)} for t in board.targets],
            "tests": [
                {"label": t.label, "passed": t.passed, "summary": t.summary, "cached": t.cached}
                for t in board.tests
            ],
            "failures": [
                {"label": f.label, "mnemonic": f.mnemonic, "error": f.error, "log": f.log}
                for f in board.failures
            ],
            "skipped": list(finished.skipped) if finished else [],
            "unreached": list(finished.unreached) if finished else [],
            "incompatible": [{"label": t.label, "reason": t.reason} for t in board.skipped],
            "error": error or "\n".join(m.text for m in board.messages if m.level == "error"),
        }
