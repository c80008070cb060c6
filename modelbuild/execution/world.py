"""World: what the scheduler asks of the rest, so that its tests need no disk and no process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from modelbuild.actions.action import Action
from modelbuild.actions.key import ActionKey
from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.errors import ModelbuildError
from modelbuild.events import Outcome


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an action's last run cost."""

    duration_s: float
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True)
class Settled:
    """An action after the build. outcome `failed` has no result; one that was never reached is absent."""

    key: ActionKey
    outcome: Outcome
    result: ActionResult | None
    error: ModelbuildError | None = None


class World(Protocol):
    """Digests, identities, caches. The driver implements it."""

    def source(self, path: str) -> OutputDigest:
        """The digest of a source artifact, whose `path` is relative to the workspace."""

    def tool_identity(self, action: Action) -> str:
        """The digest of the action's tool and its environment."""

    def lookup(self, key: str) -> ActionResult | None:
        """A complete and unaltered result of the action cache."""

    def is_current(self, action: Action, result: ActionResult) -> bool:
        """Whether modelbuild-out holds this very result already."""

    def link(self, action: Action, result: ActionResult) -> None:
        """Put the outputs into modelbuild-out."""

    def reason(self, action: Action, key: ActionKey, inputs: Mapping[str, OutputDigest]) -> str:
        """Why the action has to run, as `explain` says it."""

    def settled(
        self, action: Action, settled: Settled, inputs: Mapping[str, OutputDigest], reason: str
    ) -> None:
        """An action has run or come from a cache: remember it."""

    def warm(self, action: Action) -> None:
        """The action will probably run soon: prepare what takes long to prepare."""

    def estimate(self, action: Action) -> Estimate | None:
        """What the action cost last time, if that is known."""
