"""RuleTarget: what a rule made of its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from modelbuild.actions.action import Action
from modelbuild.artifact import Artifact
from modelbuild.label import Label
from modelbuild.provider import DefaultInfo, Provider

P = TypeVar("P", bound=Provider)


@dataclass(frozen=True)
class RuleTarget:
    """One analysed target. resolutions: how each toolchain was chosen, as text."""

    label: Label
    actions: tuple[Action, ...]
    providers: Mapping[type[Provider], Provider]
    resolutions: tuple[str, ...] = ()

    @property
    def action(self) -> Action:
        """The one action. Raises AssertionError when there is another number of them."""
        assert len(self.actions) == 1, [action.mnemonic for action in self.actions]
        return self.actions[0]

    @property
    def files(self) -> tuple[Artifact, ...]:
        """What `modelbuild build` shows of it."""
        return self.get(DefaultInfo).files

    def named(self, mnemonic: str) -> Action:
        """The one action with this mnemonic. Raises AssertionError when there is another number of them."""
        found = [action for action in self.actions if action.mnemonic == mnemonic]
        assert len(found) == 1, f"{mnemonic}: {[action.mnemonic for action in self.actions]}"
        return found[0]

    def get(self, provider: type[P]) -> P:
        """A provider, by its class or a base of it. Raises AssertionError when there is none."""
        found = self.providers.get(provider)
        assert isinstance(found, provider), (
            f"{self.label} provides {sorted(p.__name__ for p in self.providers)}"
        )
        return found
