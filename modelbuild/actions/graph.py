"""ActionGraph: what analysis hands to execution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelbuild.actions.action import Action
from modelbuild.artifact import Artifact
from modelbuild.label import Label


@dataclass(frozen=True, slots=True)
class RequestedTarget:
    """A target the user named, and what building it means."""

    label: Label
    rule: str
    files: tuple[Artifact, ...]
    validations: tuple[Artifact, ...] = ()
    test_verdict: Artifact | None = None


@dataclass(frozen=True, slots=True)
class ActionGraph:
    """All actions that the requested targets can reach, and who makes which artifact.

    actions: in an order where producers come before consumers.
    producers: derived artifact -> index into `actions`.
    """

    actions: tuple[Action, ...]
    producers: Mapping[Artifact, int]
    requested: tuple[RequestedTarget, ...]
