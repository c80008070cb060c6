"""Why a target's actions last ran, and why they would or would not run now. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from modelbuild.actions.action import Action
from modelbuild.actions.graph import ActionGraph
from modelbuild.actions.key import action_key
from modelbuild.actions.result import OutputDigest
from modelbuild.cache.local import LocalCache
from modelbuild.cache.trace import TraceRow
from modelbuild.driver.analysis import load_and_analyze
from modelbuild.driver.request import BuildRequest
from modelbuild.driver.world import BuildWorld
from modelbuild.execution.environment import ToolIdentities
from modelbuild.execution.local import LocalExecutor
from modelbuild.execution.output_tree import OutputTree

Status = Literal["up_to_date", "cached", "would_run", "depends"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One action of a target.

    status: `up_to_date`: its outputs stand; `cached`: they would be restored; `would_run`: `reason` says why;
    `depends`: on `waits_for`, which would run first. last: its last run, here or
    on a machine that shares the cache.
    """

    label: str
    mnemonic: str
    output: str
    status: Status
    reason: str
    waits_for: str
    last: TraceRow | None


def explain(request: BuildRequest, tell: Callable[[str], None] = lambda _: None) -> list[Explanation]:
    """Explain every action of the targets that `request` names, producers first.

    tell: takes how each toolchain was chosen, if the request asks for that.
    """
    graph = load_and_analyze(request, tell)[1].graph
    with LocalCache.open(request.cache_dir, request.root) as cache:
        world = BuildWorld(
            str(request.root),
            cache=cache,
            identities=ToolIdentities(cache.root),
            outputs=OutputTree(str(request.root), cache.blobs),
            executor=LocalExecutor(cache.root, cache.blobs),
        )
        return _explain_graph(graph, world, cache, request.salt)


def _explain_graph(graph: ActionGraph, world: BuildWorld, cache: LocalCache, salt: str) -> list[Explanation]:
    made: dict[str, OutputDigest] = {}
    would_run: dict[int, str] = {}
    requested = {target.label for target in graph.requested}
    explanations = []
    for index, action in enumerate(graph.actions):
        blocked = [d for d in graph.dependencies[index] if d in would_run]
        last = cache.trace.latest(action.primary_output.path)
        status: Status = "depends"
        reason = waits_for = ""
        if blocked:
            waits_for = would_run[blocked[0]]
        else:
            status, reason = _status(action, world, made, salt)
        if status in ("depends", "would_run"):
            would_run[index] = str(action.owner)
        if action.owner in requested:
            explanations.append(
                Explanation(
                    str(action.owner),
                    action.mnemonic,
                    str(action.primary_output),
                    status,
                    reason,
                    waits_for,
                    last,
                )
            )
    return explanations


def _status(
    action: Action, world: BuildWorld, made: dict[str, OutputDigest], salt: str
) -> tuple[Status, str]:
    inputs = {
        name: world.source(artifact.path) if artifact.is_source else made[artifact.path]
        for name, artifact in action.inputs.items()
    }
    key = action_key(action, world.tool_identity(action), inputs, salt)
    result = world.lookup(key.sha256)
    if result is None:
        return "would_run", world.reason(action, key, inputs)
    for name, artifact in action.outputs.items():
        made[artifact.path] = result.outputs[name]
    return ("up_to_date" if world.is_current(action, result) else "cached"), ""
