"""Plans: what a request has to settle, from its snapshot or from its BUILD files."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelbuild.actions.graph import ActionGraph
from modelbuild.driver.graph_codec import decode_graph
from modelbuild.driver.request import BuildRequest
from modelbuild.driver.snapshot import Difference, Facts, SnapshotFiles
from modelbuild.driver.stamp import Stamp, listing, stamp_after_reading
from modelbuild.driver.standing import StandingResults, untouched
from modelbuild.errors import ModelbuildError
from modelbuild.events import Clock, EventSink, Message


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be settled, and the facts that are known before.

    skipped: targets that patterns name and the platform cannot have, with the reason. known: actions that
    need no look. rows: stored key and result of each action. has_errors: whether loading or
    analysis went on after errors. unbuildable: the targets that those took away.
    """

    graph: ActionGraph
    loading: dict[str, Stamp]
    directories: dict[str, tuple[Stamp, str]]
    counts: tuple[int, int, int]
    skipped: tuple[tuple[str, str], ...]
    known: Mapping[int, Any] = field(default_factory=dict)
    rows: list[list[Any]] | None = None
    has_errors: bool = False
    unbuildable: tuple[str, ...] = ()


def stored_plan(files: SnapshotFiles, facts: Facts, difference: Difference) -> Plan | None:
    """What is left to do when the BUILD files still mean the same; None when the snapshot is not whole."""
    encoded, rows = files.graph(facts), files.results(facts)
    if encoded is None or rows is None:
        return None
    standing = set() if difference.environment else untouched(encoded, difference)
    return Plan(
        decode_graph(encoded),
        facts.loading,
        facts.directories,
        facts.counts,
        tuple((label, reason) for label, reason in facts.skipped),
        StandingResults(rows, standing),
        rows,
    )


def fresh_plan(request: BuildRequest, sink: EventSink, clock: Clock) -> Plan:
    """Evaluate BUILD files and run rules. Raises LoadError and AnalysisError."""
    from modelbuild.driver.analysis import load_and_analyze  # noqa: PLC0415 - brings pydantic and Starlark

    started = time.time_ns()

    def note(text: str) -> None:
        sink(Message(clock(), "note", text))

    def keep(error: ModelbuildError) -> None:
        sink(Message(clock(), "error", str(error).removeprefix("error: ")))

    targets, analysis = load_and_analyze(request, note, keep)
    for text in targets.messages:
        sink(Message(clock(), "info", text))
    graph = analysis.graph
    read = [*targets.facts.files, *targets.facts.absent, *_modules(str(request.root))]
    loading = {path: stamp_after_reading(path, started) for path in read}
    directories = {
        path: (stamp_after_reading(path, started), listing(path, request.own_paths))
        for path in (*targets.facts.directories, *analysis.listings)
    }
    counts = (len(targets.packages), len(targets.targets), len(graph.actions))
    skipped = tuple((str(label), reason) for label, reason in analysis.skipped)
    return Plan(
        graph,
        loading,
        directories,
        counts,
        skipped,
        has_errors=bool(targets.errors or analysis.errors),
        unbuildable=tuple(map(str, (*targets.unbuildable, *analysis.unbuildable))),
    )


def _modules(root: str) -> list[str]:
    """Python files that decide what BUILD files mean: modelbuild's own, and what rule files imported."""
    return sorted(
        module.__file__
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None))
        and (name.partition(".")[0] == "modelbuild" or file.startswith(f"{root}/"))
        and module.__file__
    )
