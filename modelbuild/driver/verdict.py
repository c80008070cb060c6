"""Verdicts: what the tests of a request found."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from modelbuild.actions.graph import RequestedTarget
from modelbuild.errors import ActionFailed
from modelbuild.events import EventSink, TestFinished


def report_verdicts(
    requested: Sequence[RequestedTarget],
    output_root: Path,
    fresh: Collection[str],
    sink: EventSink,
    now: float,
) -> bool:
    """Read the verdict of every test; whether all passed. `fresh`: paths of outputs made in this build.

    Raises ActionFailed when a verdict is not what TestInfo says it is: a gate that cannot be read is shut.
    """
    passed = True
    for target in requested:
        if target.verdict is None:
            continue
        path = output_root / target.verdict.path
        try:
            verdict = json.loads(path.read_text())
            outcome, summary = verdict["passed"], str(verdict["summary"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ActionFailed(f"the verdict of `{target.label}` cannot be read: {error}") from error
        if outcome is not True:
            passed = False
        sink(TestFinished(now, str(target.label), outcome is True, summary, target.verdict.path not in fresh))
    return passed
