"""Rules: a pydantic model of attributes with one pure method, `analyze`.

The annotations are the schema: they are checked when a target is declared, and `modelbuild help rule`
and docs/reference are generated from them and from the docstring.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from modelbuild.actions.action import Determinism
from modelbuild.attribute import Dep
from modelbuild.platform import ConstraintValueInfo
from modelbuild.provider import Provider

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelbuild.analysis.context import Context


class Rule(BaseModel):
    """The base of every rule. A subclass `DeviceBinary` is the rule `device_binary`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, use_attribute_docstrings=True
    )

    determinism: ClassVar[Determinism] = "bitwise"
    """What two runs of this rule's actions have in common; see ARCHITECTURE.md."""
    is_test: ClassVar[bool] = False
    """Whether `modelbuild test` runs it. Names of test rules end in `_test`, or are `test_suite`."""
    needs_platform: ClassVar[bool] = False
    """Whether `analyze` asks for `ctx.platform`. Other targets are analysed once for all platforms."""
    platform_attribute: ClassVar[str] = ""
    """The attribute that names the platform the target is built for, or the list of those it is built for."""
    split_attributes: ClassVar[frozenset[str]] = frozenset()
    """Attributes whose targets are built for each platform of a list; see `Context.under`."""
    is_skippable: ClassVar[bool] = True
    """Whether a platform without the values of `target_compatible_with` makes the target incompatible."""
    exec_attributes: ClassVar[frozenset[str]] = frozenset()
    """Attributes whose targets run during the build: they are built for the machine that builds."""

    name: str
    visibility: list[str] | None = None
    tags: list[str] = []
    testonly: bool = False
    deprecation: str | None = None
    target_compatible_with: list[Dep[ConstraintValueInfo]] = []

    @classmethod
    def declared_outputs(cls, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of output files that are labels of the package, as genrule's `outs` are."""
        return ()

    @classmethod
    def toolchain_types(cls, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """Labels of the toolchain types that `analyze` asks for; the target needs a platform then."""
        return ()

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare actions and say what the target provides. Touches neither disk nor process."""
        raise NotImplementedError


COMMON_ATTRIBUTES = frozenset(Rule.model_fields)
"""Attributes that every rule has; none of them is ever in an action key."""


def rule_name(rule: type[Rule]) -> str:
    """The name BUILD files call `rule` by: its class name in snake_case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", rule.__name__).lower()


def attribute_types(rule: type[Rule]) -> dict[str, Any]:
    """Attribute name -> annotation: the rule's own, then those of its base classes, then the common ones."""
    fields = rule.model_fields
    declared = [name for name in rule.__annotations__ if name in fields]
    shared = [name for name in fields if name not in COMMON_ATTRIBUTES]
    names = dict.fromkeys((*declared, *shared, *fields))
    return {name: fields[name].annotation for name in names}
