"""test_suite: a name for several tests."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.analysis.context import Context
from modelbuild.attribute import Dep
from modelbuild.provider import DefaultInfo, Provider
from modelbuild.rules.native.native_rule import NativeRule


class TestSuite(NativeRule):
    """A name for several tests. Loading replaces it by them; without `tests`, by all of the package.

    test_suite(name = "gates", tests = [":accuracy_gate"], tags = ["-slow"])
    """

    __test__ = False  # Not a pytest class.

    testonly: bool = True
    tests: list[Dep[Provider]] = []
    """Test and suite labels; empty: every test of the package that is not tagged `manual`."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """A suite makes nothing itself."""
        return [DefaultInfo()]
