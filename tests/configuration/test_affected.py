"""A change of a toolchain or a platform touches what was built with it, though no BUILD line names it."""

from __future__ import annotations

from pathlib import Path

from modelbuild.loading.build_options import BuildOptions
from modelbuild.loading.workspace import open_workspace
from modelbuild.query.affected import affected
from modelbuild.query.universe import load_universe
from tests.configuration.conftest import Analyze

TEXT = """
    load("//toolchains:rule.py", "compile")
    compile(name = "c")
    compile(name = "pinned", platform = "//platforms:drone")
    genrule(name = "g", outs = ["o"], cmd = "c")
    genrule(name = "s", outs = ["s.txt"], cmd = select({"@platforms//os:linux": "l"}))
"""


def touched(root: Path, path: str, platform: str = "") -> set[str]:
    workspace = open_workspace(str(root))
    options = BuildOptions(platform, "", ("//toolchains:all",))
    graph = load_universe(workspace, ["//..."], options=options)
    return {str(label) for label in affected([path], graph, workspace) if label.package == "p"}


def test_toolchains_and_platforms_touch_what_asks_for_them(found: Analyze, tmp_path: Path) -> None:
    found(TEXT)
    assert touched(tmp_path, "toolchains/BUILD.models") == {"//p:c", "//p:pinned"}
    assert touched(tmp_path, "platforms/BUILD.models") == {"//p:pinned"}
    assert touched(tmp_path, "platforms/BUILD.models", "//platforms:drone") == {
        "//p:c",
        "//p:pinned",
        "//p:s",
    }
