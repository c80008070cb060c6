"""alias: another name for a target."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.analysis.context import Context
from modelbuild.attribute import Dep
from modelbuild.provider import Provider
from modelbuild.rules.native.native_rule import NativeRule


class Alias(NativeRule):
    """Another name for a target, with its own visibility.

    alias(name = "latest", actual = "//targets:drone-int4")
    """

    actual: Dep[Provider]
    """The target that is meant."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Everything the other target provides."""
        return list(self.actual.all_providers.values())
