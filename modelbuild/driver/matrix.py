"""`modelbuild matrix`: builds every cell of a matrix, goes on where one fails, and reads the evidence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from modelbuild.actions.graph import ActionGraph
from modelbuild.analysis.analyze import Analysis
from modelbuild.driver.analysis import load_and_analyze
from modelbuild.driver.build import build
from modelbuild.driver.request import BuildRequest
from modelbuild.errors import ExitCode, UsageError
from modelbuild.events import ActionFinished, BuildFinished, Event, EventSink
from modelbuild.label import Label
from modelbuild.matrix import MatrixCell, MatrixInfo

Verdict = Literal["pass", "fail", "unverified", "impossible", "broken"]


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """A cell after the build.

    verdict: `pass` and `fail`: it was run, and is or is not within its bounds; `unverified`: it was made and
    cannot be run here; `impossible`: the platform cannot have it; `broken`: an action failed. reason: why,
    for all but `pass`. report: what `cell.json` holds; empty without one.
    """

    cell: MatrixCell
    verdict: Verdict
    reason: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MatrixOutcome:
    """The matrix after a build.

    actions: of the whole graph, each once. separate_actions: the sum over all cells of what a cell alone
    needs, as a script for each device would run it. executed: in this build.
    """

    label: Label
    rows: tuple[MatrixRow, ...]
    graph: ActionGraph
    actions: int
    separate_actions: int
    executed: int
    wall_s: float
    exit_code: ExitCode


@dataclass(frozen=True, slots=True)
class MatrixPlan:
    """What is known before the build. needed: for each cell, the numbers of the actions that make it."""

    label: Label
    cells: tuple[MatrixCell, ...]
    graph: ActionGraph
    needed: tuple[frozenset[int], ...]


def plan_matrix(request: BuildRequest, tell: Callable[[str], None]) -> MatrixPlan:
    """Analyse the one target of `request`. Raises UsageError when it is no matrix.

    tell: takes how each toolchain was chosen, if the request asks for that.
    """
    _, analysis = load_and_analyze(request, tell)
    label, info = _matrix(analysis, request.patterns)
    graph = analysis.graph
    closures = _closures(graph)
    needed = tuple(
        closures[graph.producers[cell.report.path]] if cell.report else frozenset[int]()
        for cell in info.cells
    )
    return MatrixPlan(label, info.cells, graph, needed)


def build_matrix(request: BuildRequest, plan: MatrixPlan, sink: EventSink) -> MatrixOutcome:
    """Build all cells. The exit code is 1 when one is broken, 3 when one is beyond its bounds, else 0."""
    failed: dict[int, str] = {}
    done: set[int] = set()
    finished: list[BuildFinished] = []

    def observe(event: Event) -> None:
        if isinstance(event, ActionFinished) and event.result == "failed":
            failed[event.action] = event.error
        elif isinstance(event, ActionFinished):
            done.add(event.action)
        elif isinstance(event, BuildFinished):
            finished.append(event)
        sink(event)

    # How toolchains were chosen has been told.
    outcome = build(replace(request, keep_going=True, detailed=True, toolchain_debug=False), observe)
    rows = tuple(
        _row(request.root, cell, needed, done, failed)
        for cell, needed in zip(plan.cells, plan.needed, strict=True)
    )
    exit_code = outcome.exit_code
    if exit_code in (ExitCode.OK, ExitCode.ACTION_FAILED):
        verdicts = {row.verdict for row in rows}
        if "broken" in verdicts:
            exit_code = ExitCode.ACTION_FAILED
        elif "fail" in verdicts:
            exit_code = ExitCode.TEST_FAILED
    return MatrixOutcome(
        plan.label,
        rows,
        plan.graph,
        len(plan.graph.actions),
        sum(map(len, plan.needed)),
        finished[-1].executed if finished else 0,
        finished[-1].wall_s if finished else 0.0,
        exit_code,
    )


def _matrix(analysis: Analysis, patterns: Sequence[str]) -> tuple[Label, MatrixInfo]:
    if len(analysis.requested) != 1:
        raise UsageError(
            f"`matrix` takes one target, and `{' '.join(patterns)}` names {len(analysis.requested)}",
            hint="`modelbuild query 'kind(artifact_matrix, //...)'` lists matrices",
        )
    ((_, target),) = analysis.requested.items()
    info = target.providers.get(MatrixInfo)
    if not isinstance(info, MatrixInfo):
        raise UsageError(
            f"`{target.label}` is a `{target.rule}` and no matrix",
            hint="`modelbuild query 'kind(artifact_matrix, //...)'` lists matrices",
        )
    return target.label, info


def _closures(graph: ActionGraph) -> list[frozenset[int]]:
    """For each action, itself and all that it rests on. Producers come before consumers."""
    closures: list[frozenset[int]] = []
    for index, dependencies in enumerate(graph.dependencies):
        closures.append(frozenset((index,)).union(*(closures[each] for each in dependencies)))
    return closures


def _row(
    root: Path, cell: MatrixCell, needed: frozenset[int], done: set[int], failed: Mapping[int, str]
) -> MatrixRow:
    if cell.report is None:
        return MatrixRow(cell, "impossible", cell.reason)
    errors = [failed[index] for index in sorted(needed) if index in failed]
    if errors:
        return MatrixRow(cell, "broken", _first_line(errors[0]))
    if not needed <= done:  # A report may be there all the same: of an earlier build.
        return MatrixRow(cell, "broken", "the build ended before it was made")
    try:
        report = json.loads((root / str(cell.report)).read_text())
    except (OSError, ValueError) as error:
        return MatrixRow(cell, "broken", f"its report cannot be read: {error}")
    return MatrixRow(cell, report["verdict"], report["reason"], report)


def _first_line(text: str) -> str:
    return text.partition("\n")[0].removeprefix("error: ")


def target_edges(graph: ActionGraph) -> Iterator[tuple[str, str]]:
    """Which target's actions read what another's have made: (maker, reader), each pair once."""
    seen: set[tuple[str, str]] = set()
    for index, dependencies in enumerate(graph.dependencies):
        for each in dependencies:
            pair = (str(graph.actions[each].owner), str(graph.actions[index].owner))
            if pair[0] != pair[1] and pair not in seen:
                seen.add(pair)
                yield pair
