"""Calling a rule: attributes are validated against what they lead to, then `analyze` runs."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from modelbuild.analysis.context import Context
from modelbuild.attribute import ResolvedTarget
from modelbuild.errors import AnalysisError, ModelbuildError
from modelbuild.kept_errors import combined
from modelbuild.label import Label
from modelbuild.loading.attribute_error import attribute_errors
from modelbuild.loading.package import Target
from modelbuild.provider import Provider
from modelbuild.rule import Rule

Providers = Mapping[type[Provider], Provider]


@dataclass(frozen=True, slots=True)
class ResolvingContext:
    """An AttributeContext of analysis."""

    package: str
    repository: str
    resolve: Callable[[Label], ResolvedTarget]


def validated(
    target: Target, attributes: Mapping[str, Any], resolve: Callable[[Label], ResolvedTarget]
) -> Rule:
    """The rule with its labels resolved. Raises LoadError, located at the BUILD line."""
    label = target.label
    try:
        return target.rule_class.model_validate(
            attributes, context=ResolvingContext(label.package, label.repository, resolve)
        )
    except ValidationError as error:
        errors = attribute_errors(
            error, target.rule, target.rule_class, label.name, target.location, target.root
        )
        raise combined(errors) from None


def call_rule(rule: Rule, context: Context, target: Target) -> Providers:
    """Call `analyze`. A mistake in a rule is its author's: told with the place, not as a bug of ours."""
    try:
        providers = by_class(rule.analyze(context))
    except ModelbuildError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        notes = tuple(f"{frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}" for frame in frames)
        raise AnalysisError(
            f"the rule `{target.rule}` failed on `{target.label}`: {type(error).__name__}: {error}",
            notes=notes,
        ) from error
    check_made(context)
    return providers


def check_made(context: Context) -> None:
    """Raise AnalysisError for a declared output that no action of the target makes: nobody could build it."""
    made = {artifact.path for action in context.actions for artifact in action.outputs.values()}
    for artifact in context.declared:
        if artifact.path not in made:
            raise AnalysisError(
                f"`{context.label}` declares the output `{artifact}`, and none of its actions makes it",
                hint="a mistake in the rule: hand it to `ctx.run` in `outputs`",
            )


def by_class(providers: Any) -> Providers:
    """Providers by their classes; one of a derived class is found under its bases, too."""
    found: dict[type[Provider], Provider] = {}
    for provider in providers:
        for base in type(provider).__mro__:
            if base is Provider:
                break
            if issubclass(base, Provider):
                found.setdefault(base, provider)
        found[type(provider)] = provider
    return found
