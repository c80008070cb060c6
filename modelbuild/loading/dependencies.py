"""The labels in the attributes of a validated rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from modelbuild.attribute import Dependency, ResolvedTarget
from modelbuild.label import Label
from modelbuild.rule import COMMON_ATTRIBUTES, Rule

PLAIN_ATTRIBUTES = COMMON_ATTRIBUTES - {"target_compatible_with"}
"""Common attributes that are read as written: they hold no `select`, and no label in them is followed."""


@dataclass(frozen=True, slots=True)
class LoadingContext:
    """An AttributeContext that parses labels and resolves none."""

    package: str
    repository: str

    def resolve(self, label: Label) -> ResolvedTarget | None:
        """Nothing is analysed yet."""
        return None


def dependencies_of(instance: Rule) -> dict[str, tuple[Label, ...]]:
    """The labels in each attribute of a validated rule that holds any, in order of declaration."""
    found = {
        name: tuple(dependency.label for dependency in _walk(getattr(instance, name)))
        for name in _dependency_fields(type(instance))
    }
    return {name: labels for name, labels in found.items() if labels}


def found_dependencies(instance: Rule) -> Iterator[Dependency]:
    """Every Dependency in the attributes of a validated rule, in order of declaration."""
    for name in _dependency_fields(type(instance)):
        yield from _walk(getattr(instance, name))


def _walk(value: Any) -> Iterator[Dependency]:
    if isinstance(value, Dependency):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _walk(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(key)
            yield from _walk(item)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name))


def _may_hold_dependency(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    if kind is Literal:
        return False
    if any(_may_hold_dependency(argument) for argument in get_args(annotation)):
        return True
    return kind is Any or (isinstance(kind, type) and issubclass(kind, (Dependency, BaseModel)))


@cache
def _dependency_fields(rule_class: type[Rule]) -> tuple[str, ...]:
    return tuple(
        name
        for name, field in rule_class.model_fields.items()
        if name not in PLAIN_ATTRIBUTES and _may_hold_dependency(field.annotation)
    )
