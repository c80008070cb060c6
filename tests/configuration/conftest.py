"""A small workspace with platforms, conditions and two toolchains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from modelbuild.analysis.analyze import Analysis, analyze
from modelbuild.loading.build_options import BuildOptions
from modelbuild.loading.load import load_graph
from modelbuild.loading.workspace import open_workspace

RULES = """
from __future__ import annotations

from dataclasses import dataclass

from modelbuild.api import (
    Context, DefaultInfo, Dep, PlatformInfo, Provider, Rule, parse_label
)

TYPE = parse_label("//toolchains:compiler")


@dataclass(frozen=True)
class CompilerInfo(Provider):
    word: str


class Compiler(Rule):
    word: str

    def analyze(self, ctx: Context):
        return [DefaultInfo(), CompilerInfo(self.word)]


class Compile(Rule):
    needs_platform = True
    platform_attribute = "platform"
    platform: Dep[PlatformInfo] | None = None
    model: Dep[Provider] | None = None

    @classmethod
    def toolchain_types(cls, attributes):
        return (str(TYPE),)

    def analyze(self, ctx: Context):
        out = ctx.declare_file("out")
        word = ctx.toolchain(TYPE).providers[CompilerInfo].word
        ctx.write(out, f"{word} for {ctx.platform.label}")
        return [DefaultInfo((out,))]


class Matrix(Rule):
    platform_attribute = "platforms"
    split_attributes = frozenset({"models"})
    models: list[Dep[Provider]]
    platforms: list[Dep[PlatformInfo]]

    def analyze(self, ctx: Context):
        files = []
        for model in self.models:
            for platform in self.platforms:
                under = ctx.under(platform=platform.info, dependency=model)
                if isinstance(under, str):
                    out = ctx.declare_file(f"{platform.label.name}-{model.label.name}.txt")
                    ctx.write(out, under)
                    files.append(out)
                else:
                    files += under.providers[DefaultInfo].files
        return [DefaultInfo(tuple(files))]
"""

TOOLCHAINS = """
load(":rule.py", "compiler")

package(default_visibility = ["//visibility:public"])

toolchain_type(name = "compiler")

[compiler(name = word, word = word) for word in ["arm", "any"]]

toolchain(
    name = "a_arm",
    toolchain = ":arm",
    toolchain_type = ":compiler",
    target_compatible_with = ["@platforms//cpu:aarch64"],
)

toolchain(
    name = "b_linux",
    toolchain = ":any",
    toolchain_type = ":compiler",
    target_compatible_with = ["@platforms//os:linux"],
)

toolchain(
    name = "c_other_machine",
    exec_compatible_with = ["@platforms//:incompatible"],
    toolchain = ":any",
    toolchain_type = ":compiler",
)
"""

PLATFORMS = """
package(default_visibility = ["//visibility:public"])

constraint_setting(name = "speed", default_constraint_value = ":slow")

[constraint_value(name = name, constraint_setting = ":speed") for name in ["slow", "fast"]]

platform(
    name = "drone",
    constraint_values = ["@platforms//cpu:arm64", "@platforms//os:linux"],
    ram = "512 MiB",
)

platform(name = "fast-drone", constraint_values = [":fast"], disk = "2 GB", parents = [":drone"])

platform(name = "phone", constraint_values = ["@platforms//cpu:x86_32", "@platforms//os:ios"])
"""

Analyze = Callable[..., Analysis]


@pytest.fixture
def found(tmp_path: Path) -> Analyze:
    """Analyses `text` as the package //p, for a platform."""

    def run(
        text: str,
        *patterns: str,
        platform: str = "",
        toolchains: tuple[str, ...] = ("//toolchains:all",),
        tell: Callable[[str], None] = lambda _: None,
        more: Mapping[str, str] = {},
        keep_going: bool = False,
        **kw: str,
    ) -> Analysis:
        files = {
            "modelbuild.toml": "",
            "toolchains/rule.py": RULES,
            "toolchains/BUILD.models": TOOLCHAINS,
            "platforms/BUILD.models": PLATFORMS,
            "p/BUILD.models": dedent(text),
            **more,
        }
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        options = BuildOptions(platform, "", toolchains, tuple(sorted(kw.items())))
        workspace = open_workspace(str(tmp_path))
        graph = load_graph(workspace, patterns or ("//p:all",), options=options, keep_going=keep_going)
        return analyze(graph, tell, keep_going=keep_going)

    return run


def contents(analysis: Analysis) -> dict[str, str]:
    """Output path -> the text or command that makes it."""
    return {
        artifact.path: str(action.params.get("content") or action.params.get("command"))
        for action in analysis.graph.actions
        for artifact in action.outputs.values()
    }
