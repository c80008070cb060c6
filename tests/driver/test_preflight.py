"""What this machine cannot run is refused before anything runs, unless a cache holds it."""

from pathlib import Path

import pytest

from tests.command_line import CommandLine

RULE = """
from pathlib import Path

from modelbuild.api import Context, DefaultInfo, File, Provider, PythonTool, Resources, Rule


class Big(Rule):
    src: File

    def analyze(self, ctx: Context) -> list[Provider]:
        out = ctx.declare_file("out.txt")
        ctx.run(
            tool=PythonTool(Path(__file__).parent / "tool.py"),
            params={},
            inputs={"src": self.src.artifact},
            outputs={"out": out},
            mnemonic="Big",
            resources=Resources(ram=RAM << 30),
        )
        return [DefaultInfo((out,))]
"""
TOOL = """
import shutil


def main(request):
    shutil.copyfile(request.inputs["src"], request.outputs["out"])
"""
BUILD = """
load("//rules/big:rule.py", "big")
genrule(name = "first", srcs = ["in.txt"], outs = ["first.txt"], cmd = "tr a-z A-Z < $< > $@")
big(name = "big", src = ":first")
genrule(name = "last", srcs = [":big", "title.txt"], outs = ["last.txt"], cmd = "cat $(SRCS) > $@")
"""
SMALL, LARGE = "1", "1000000"


@pytest.fixture
def workspace(tmp_path: Path) -> CommandLine:
    """Built once, on a machine that was large enough."""
    root = tmp_path / "workspace"
    root.mkdir()
    workspace = CommandLine(root)
    workspace.put("modelbuild.toml", "")
    workspace.put("in.txt", "hello\n")
    workspace.put("title.txt", "title\n")
    workspace.put("BUILD.models", BUILD)
    workspace.put("rules/big/BUILD.models", "")
    workspace.put("rules/big/tool.py", TOOL)
    workspace.put("rules/big/rule.py", RULE.replace("RAM", SMALL))
    workspace.build()
    workspace.put("rules/big/rule.py", RULE.replace("RAM", LARGE))
    return workspace


def test_what_a_cache_holds_needs_no_machine(workspace: CommandLine) -> None:
    assert workspace.build().executed() == set()
    workspace.put("title.txt", "another\n")
    assert workspace.build().executed() == {"//:last"}


def test_what_would_run_is_refused_before_anything_runs(workspace: CommandLine) -> None:
    workspace.put("in.txt", "changed\n")
    result = workspace.build(expect=4)
    assert "`//:big` needs" in result.stderr
    assert result.executed() == set()


def test_a_check_runs_it(workspace: CommandLine) -> None:
    assert "`//:big` needs" in workspace.build("--check", "//:big", expect=4).stderr
    assert workspace.build("--check", "//:last").executed() == {"//:last"}
