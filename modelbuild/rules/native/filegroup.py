"""filegroup: a name for several files."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.analysis.context import Context
from modelbuild.attribute import Files
from modelbuild.provider import DefaultInfo, Provider
from modelbuild.rules.native.native_rule import NativeRule


class Filegroup(NativeRule):
    """A name for several files or targets.

    filegroup(name = "scripts", srcs = glob(["*.py"]))
    """

    srcs: list[Files] = []
    """Files, and targets whose default files are meant."""
    data: list[Files] = []
    """Files needed at run time."""
    output_licenses: list[str] = []
    """Accepted as in Bazel; means nothing."""
    path: str = ""
    """Accepted as in Bazel; means nothing."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """The files of `srcs`, each once, in order."""
        files = [artifact for source in self.srcs for artifact in source.artifacts]
        return [DefaultInfo(tuple(dict.fromkeys(files)))]
