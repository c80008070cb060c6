"""Toolchains: what `toolchain` and `toolchain_type` targets tell resolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelbuild.label import Label
from modelbuild.platform import ConstraintValueInfo
from modelbuild.provider import Provider


@dataclass(frozen=True)
class ToolchainTypeInfo(Provider):
    """A kind of toolchain. no_match_error: told when none fits."""

    label: Label
    no_match_error: str = ""


@dataclass(frozen=True)
class DeclaredToolchainInfo(Provider):
    """A `toolchain` target. implementation: the target it leads to; providers: what that one provides."""

    label: Label
    toolchain_type: Label
    implementation: Label
    target_constraints: tuple[ConstraintValueInfo, ...]
    exec_constraints: tuple[ConstraintValueInfo, ...]
    providers: Mapping[type[Provider], Provider] = field(hash=False, repr=False)
