"""Targets that mean the same on every platform: constraint values, platforms, conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from modelbuild.analysis.context import Context
from modelbuild.analysis.rule_call import Providers, call_rule, validated
from modelbuild.artifact import Artifact
from modelbuild.errors import AnalysisError, ModelbuildError
from modelbuild.label import Label
from modelbuild.loading.dependencies import found_dependencies
from modelbuild.loading.package import TargetGraph
from modelbuild.provider import DefaultInfo, Provider

P = TypeVar("P", bound=Provider)


@dataclass(frozen=True, slots=True)
class StaticTarget:
    """A ResolvedTarget."""

    label: Label
    rule: str
    providers: Mapping[type[Provider], Provider]


class StaticTargets:
    """Runs the rules of such targets while everything else is being configured; declares no actions."""

    def __init__(self, targets: TargetGraph, sensitive: frozenset[Label]) -> None:
        """sensitive: targets that depend on the platform."""
        self._targets = targets
        self._sensitive = sensitive
        self._known: dict[Label, StaticTarget] = {}

    def info(self, label: Label, provider: type[P], user: Label, role: str) -> P:
        """A provider of `label`. role: what it is to `user`, as in `a condition of a `select``.

        Raises AnalysisError when it does not have it, or depends on the platform itself.
        """
        target = self.target(label, user)
        found = target.providers.get(provider)
        if not isinstance(found, provider):
            notes = (f"needed by `{user}`",) if user != label else ()
            raise AnalysisError(f"`{label}` is a {target.rule} and no {role}", notes=notes)
        return found

    def target(self, label: Label, user: Label) -> StaticTarget:
        """The target, aliases followed."""
        known = self._known.get(label)
        if known is None:
            known = self._known[label] = self._analyze(label, user)
        return known

    def _analyze(self, label: Label, user: Label) -> StaticTarget:
        target = self._targets.targets.get(label)
        if target is None:
            # No file says anything of a platform; but what is none by mistake may have files.
            return StaticTarget(label, "file", {DefaultInfo: DefaultInfo((Artifact(label.path, "source"),))})
        if label in self._sensitive or target.instance is None:
            raise AnalysisError(
                f"`{label}` depends on the platform, and is used to choose one",
                notes=(f"needed by `{user}`",),
                location=target.location,
                source_line=target.source_line(),
            )
        try:
            rule = validated(target, target.attributes, lambda each: self.target(each, label))
            context = Context(label, determinism=rule.determinism, declared_at=str(target.location))
            providers: Providers = call_rule(rule, context, target)
        except ModelbuildError as error:
            raise error.located(target.location, target.source_line()) from None
        if target.rule == "alias":
            label = next(found_dependencies(rule)).actual_label
        return StaticTarget(label, target.rule, providers)
