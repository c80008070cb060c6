"""The answer to a request of which every fact still holds."""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelbuild.actions.graph import RequestedTarget
from modelbuild.driver.graph_codec import decode_graph, decode_requested
from modelbuild.driver.request import FEW_TARGETS, BuildOutcome, BuildRequest
from modelbuild.driver.snapshot import Facts, SnapshotFiles
from modelbuild.driver.verdict import report_verdicts
from modelbuild.errors import ExitCode
from modelbuild.events import (
    ActionFinished,
    AnalysisFinished,
    BuildFinished,
    Clock,
    EventSink,
    TargetFinished,
    TargetSkipped,
)


def answer_from_facts(
    request: BuildRequest, facts: Facts, files: SnapshotFiles, sink: EventSink, clock: Clock
) -> BuildOutcome:
    """Report that nothing has to be done."""
    sink(AnalysisFinished(clock(), *facts.counts, True))
    for label, reason in facts.skipped:
        sink(TargetSkipped(clock(), label, reason))
    if request.detailed:
        _report_actions(facts, files, sink, clock)
    requested: Sequence[RequestedTarget] = ()
    passed = True
    if request.detailed or request.command != "build" or len(facts.requested) <= FEW_TARGETS:
        requested = decode_requested(facts.requested)
        for target in requested:
            sink(TargetFinished(clock(), str(target.label), True, tuple(str(a) for a in target.files)))
        if request.command == "test":
            passed = report_verdicts(requested, request.output_root, (), sink, clock())
    exit_code = ExitCode.OK if passed else ExitCode.TEST_FAILED
    count = len(facts.requested)
    sink(BuildFinished(clock(), 0, 0, 0, facts.counts[2], 0, clock(), int(exit_code), targets=count))
    return BuildOutcome(exit_code, requested)


def _report_actions(facts: Facts, files: SnapshotFiles, sink: EventSink, clock: Clock) -> None:
    data, results = files.graph(facts), files.results(facts)
    if data is None or results is None:
        return
    graph = decode_graph(data)
    for index, (action, (key, encoded)) in enumerate(zip(graph.actions, results, strict=True)):
        peak = json.loads(encoded)["peak_rss_bytes"] if encoded else 0
        sink(
            ActionFinished(
                clock(),
                index,
                str(action.owner),
                action.mnemonic,
                key,
                "unchanged",
                0.0,
                peak,
                dependencies=graph.dependencies[index],
            )
        )
