"""select(): attribute values that depend on the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label

DEFAULT_CONDITION = "//conditions:default"
CONDITION_RULES = frozenset({"config_setting", "constraint_value"})
"""The rules whose targets a `select` may name as conditions."""


@dataclass(frozen=True, slots=True)
class Select:
    """One `select({...})`: condition as written -> value, in order."""

    branches: tuple[tuple[str, Any], ...]
    no_match_error: str = ""

    def conditions(self, package: str = "", repository: str = "") -> tuple[Label, ...]:
        """The labels of its conditions, without `//conditions:default`."""
        return tuple(
            parse_label(key, package, repository) for key, _ in self.branches if key != DEFAULT_CONDITION
        )


Chooser = Callable[[Select], str]
"""Gives the key of the branch that holds; raises AnalysisError when none or several do."""


def selects(value: Any) -> Iterator[Select]:
    """Every select in an attribute's value. Selects only stand in a list: `[...] + select({...})`."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, Select):
                yield item


def is_configurable(value: Any) -> bool:
    """Whether the value holds a select."""
    return isinstance(value, list) and any(isinstance(item, Select) for item in value)


def resolve_value(value: Any, chooser: Chooser) -> Any:
    """The value with each select replaced by its chosen branch.

    A select alone takes its branch's value whatever its type; selects beside other items or beside each
    other are concatenated, so their branches must be lists. None is returned for a branch of None: the
    attribute then takes its default.
    """
    if not is_configurable(value):
        return value
    if len(value) == 1:
        return _branch(value[0], chooser)
    resolved: list[Any] = []
    for item in value:
        if not isinstance(item, Select):
            resolved.append(item)
            continue
        branch = _branch(item, chooser)
        if branch is None:
            continue
        if not isinstance(branch, list):
            raise LoadError("a `select` that is concatenated needs lists in all its branches")
        resolved += branch
    return resolved


def resolve_select(attributes: Mapping[str, Any], chooser: Chooser) -> dict[str, Any]:
    """Attributes with every select resolved; those that resolve to None are left out."""
    resolved = {name: resolve_value(value, chooser) for name, value in attributes.items()}
    return {name: value for name, value in resolved.items() if value is not None}


def choose_default(select: Select) -> str:
    """The chooser of an empty configuration, in which only `//conditions:default` holds.

    Raises LoadError when there is no default.
    """
    for key, _ in select.branches:
        if key == DEFAULT_CONDITION:
            return key
    keys = tuple(key for key, _ in select.branches)
    raise LoadError(
        select.no_match_error or "no condition of this `select` matches the configuration",
        notes=tuple(f"condition `{key}`" for key in keys),
        hint=f'a branch `"{DEFAULT_CONDITION}"` is taken when nothing else matches',
    )


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition in one configuration: whether it holds, and all that it asks for.

    requirements: for instance the constraint values of a config_setting; they say which of two conditions is
    the more specific one.
    """

    holds: bool
    requirements: frozenset[str] = frozenset()


def choose(select: Select, condition_of: Callable[[str], Condition]) -> str:
    """The key of the branch that Bazel takes: of those that hold, the one that asks for all that the others
    ask for and more; without any, `//conditions:default`.

    condition_of: gives the Condition of a key as written. Raises LoadError when several hold and none is the
    most specific, unless all their values are equal, or when none holds and there is no default.
    """
    holding = {
        key: condition.requirements
        for key, _ in select.branches
        if key != DEFAULT_CONDITION and (condition := condition_of(key)).holds
    }
    best = [
        key
        for key, requirements in holding.items()
        if not any(requirements < other for other in holding.values())
    ]
    if not best:
        return choose_default(select)
    values = [value for key, value in select.branches if key in best]
    if any(value != values[0] for value in values):
        raise LoadError(
            "several conditions of this `select` hold, and none is the most specific",
            notes=tuple(f"condition `{key}` holds" for key in best),
        )
    return best[0]


def variants(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attribute sets that together show every branch of every select at least once."""
    found: list[dict[str, Any]] = []
    count = max((len(s.branches) for value in attributes.values() for s in selects(value)), default=1)
    for index in range(count):

        def nth(select: Select, index: int = index) -> str:
            return select.branches[min(index, len(select.branches) - 1)][0]

        found.append(resolve_select(attributes, nth))
    return found


def _branch(select: Select, chooser: Chooser) -> Any:
    chosen = chooser(select)
    for key, value in select.branches:
        if key == chosen:
            return value
    raise LoadError(f"this `select` has no branch `{chosen}`")
