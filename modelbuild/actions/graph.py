"""ActionGraph: what analysis hands to execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelbuild.actions.action import Action
from modelbuild.artifact import Artifact
from modelbuild.label import Label


@dataclass(frozen=True, slots=True)
class RequestedTarget:
    """A target the user named, and what building it means.

    files: what `build` makes and shows. validations: built with it, of the target and all it depends on.
    verdict: for tests, the file that says whether it passed.
    """

    label: Label
    rule: str
    files: tuple[Artifact, ...]
    validations: tuple[Artifact, ...] = ()
    verdict: Artifact | None = None


@dataclass(frozen=True, slots=True)
class ActionGraph:
    """All actions that the requested targets can reach, and who makes which artifact.

    actions: producers come before consumers.
    producers: path of a derived artifact -> index into `actions`.
    dependencies: for each action, the indices of the actions that make its inputs.
    """

    actions: Sequence[Action]
    producers: Mapping[str, int]
    dependencies: Sequence[tuple[int, ...]]
    requested: Sequence[RequestedTarget]


def make_graph(actions: Sequence[Action], requested: tuple[RequestedTarget, ...]) -> ActionGraph:
    """The part of `actions` that `requested` needs. `actions` are in dependency order already."""
    producers = {a.path: i for i, action in enumerate(actions) for a in action.outputs.values()}
    dependencies = [_producers_of(action, producers) for action in actions]
    needed: set[int] = set()
    todo = [
        producers[artifact.path]
        for target in requested
        for artifact in (*target.files, *target.validations, *((target.verdict,) if target.verdict else ()))
        if not artifact.is_source
    ]
    while todo:
        index = todo.pop()
        if index not in needed:
            needed.add(index)
            todo.extend(dependencies[index])
    if len(needed) == len(actions):
        return ActionGraph(tuple(actions), producers, tuple(dependencies), requested)
    kept = [actions[index] for index in sorted(needed)]
    producers = {a.path: i for i, action in enumerate(kept) for a in action.outputs.values()}
    return ActionGraph(
        tuple(kept), producers, tuple(_producers_of(action, producers) for action in kept), requested
    )


def _producers_of(action: Action, producers: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sorted({producers[a.path] for a in action.inputs.values() if not a.is_source}))
