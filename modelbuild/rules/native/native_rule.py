"""NativeRule: what Bazel's native rules accept and what changes nothing here."""

from __future__ import annotations

from modelbuild.attribute import Dep
from modelbuild.platform import ConstraintValueInfo
from modelbuild.rule import Rule


class NativeRule(Rule):
    """A rule that Bazel has too."""

    features: list[str] = []
    """Accepted as in Bazel; means nothing."""
    licenses: list[str] = []
    """Accepted as in Bazel; means nothing."""
    exec_properties: dict[str, str] = {}
    """Accepted as in Bazel; every action runs locally."""
    exec_compatible_with: list[Dep[ConstraintValueInfo]] = []
    """Values that the machine which builds must have; without them the target is an error."""
