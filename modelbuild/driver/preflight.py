"""Preflight: refuses at once what this machine cannot run, rather than after hours of what comes before it.

An action whose result a cache holds needs no machine. Its key is known when all its inputs are, so the
ancestors of an action that is too large are looked up first; as a rule there is none, and nothing is
looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from modelbuild.actions.action import Action
from modelbuild.actions.graph import ActionGraph
from modelbuild.actions.key import action_key
from modelbuild.actions.result import ActionResult, OutputDigest, StandingResult
from modelbuild.errors import EnvironmentFailure, ModelbuildError
from modelbuild.execution.resources import ResourcePool
from modelbuild.execution.world import World


def refuse_oversized(
    graph: ActionGraph,
    world: World,
    resources: ResourcePool,
    *,
    known: Mapping[int, StandingResult],
    rerun: Callable[[Action], bool],
    salt: str,
) -> None:
    """Raises EnvironmentFailure with the shortfall of the first action that would run and does not fit.

    known: actions whose result stands. rerun: actions that run even if a cache holds their result. What comes
    after an action that has to run counts as having to run.
    """
    refusals: dict[int, EnvironmentFailure] = {}
    for index in range(len(graph.dependencies)):
        refusal = None if index in known else resources.shortfall(graph.actions[index])
        if refusal is not None:
            refusals[index] = refusal
    if not refusals:
        return
    made: dict[str, OutputDigest] = {}
    for index in sorted(_with_ancestors(graph, refusals)):
        action = graph.actions[index]
        result = known[index].result if index in known else None
        if result is None and not rerun(action):
            result = _cached(action, world, made, salt)
        if result is not None:
            made.update({artifact.path: result.outputs[name] for name, artifact in action.outputs.items()})
        elif index in refusals:
            raise refusals[index]


def _with_ancestors(graph: ActionGraph, indices: Collection[int]) -> set[int]:
    found: set[int] = set()
    pending = list(indices)
    while pending:
        index = pending.pop()
        if index not in found:
            found.add(index)
            pending.extend(graph.dependencies[index])
    return found


def _cached(action: Action, world: World, made: Mapping[str, OutputDigest], salt: str) -> ActionResult | None:
    """The result a cache holds; None also when an input is not made yet."""
    if not all(artifact.is_source or artifact.path in made for artifact in action.inputs.values()):
        return None
    try:
        inputs = {
            name: world.source(artifact.path) if artifact.is_source else made[artifact.path]
            for name, artifact in action.inputs.items()
        }
        return world.lookup(action_key(action, world.tool_identity(action), inputs, salt).sha256)
    except ModelbuildError:
        return None  # A source or a tool that is not there: the scheduler says so, of the action.
