"""toolchain_type and toolchain: what tools a platform has, chosen by constraints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from modelbuild.analysis.context import Context
from modelbuild.attribute import Dep
from modelbuild.platform import ConstraintValueInfo
from modelbuild.provider import DefaultInfo, Provider
from modelbuild.rules.native.native_rule import NativeRule
from modelbuild.toolchain import DeclaredToolchainInfo, ToolchainTypeInfo


class ToolchainType(NativeRule):
    """A kind of toolchain that rules ask for, as in Bazel.

    toolchain_type(name = "runtime")
    """

    no_match_error: str = ""
    """What to tell people when no toolchain of this type fits."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Only a name."""
        return [DefaultInfo(), ToolchainTypeInfo(ctx.label, self.no_match_error)]


class Toolchain(NativeRule):
    """Says for which platforms a toolchain works, as in Bazel.

    It is considered once `toolchains` in modelbuild.toml or `--extra-toolchains` names it; of several that
    fit, the one that is registered first is taken.

        toolchain(
            name = "llama_cpp_aarch64",
            toolchain = ":llama_cpp",
            toolchain_type = "//toolchains:runtime",
            target_compatible_with = ["@platforms//cpu:aarch64"],
        )
    """

    exec_attributes: ClassVar[frozenset[str]] = frozenset({"toolchain"})
    is_skippable: ClassVar[bool] = False

    toolchain_type: Dep[ToolchainTypeInfo]
    """What it can be asked for as."""
    toolchain: Dep[Provider]
    """The target that provides it."""
    exec_compatible_with: list[Dep[ConstraintValueInfo]] = []
    """Values that the machine which builds must have."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """What resolution needs to know; `target_compatible_with` is about the target platform here."""
        return [
            DefaultInfo(),
            DeclaredToolchainInfo(
                ctx.label,
                self.toolchain_type.info.label,
                self.toolchain.actual_label,
                tuple(each.info for each in self.target_compatible_with),
                tuple(each.info for each in self.exec_compatible_with),
                self.toolchain.all_providers,
            ),
        ]
