"""Analysis of whole workspaces: what labels lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.analysis.analyze import Analysis, analyze
from modelbuild.errors import AnalysisError
from modelbuild.label import parse_label
from modelbuild.loading.load import load_graph
from modelbuild.loading.workspace import open_workspace


def analysis(root: Path, text: str) -> Analysis:
    (root / "modelbuild.toml").touch()
    (root / "in.txt").touch()
    (root / "BUILD.models").write_text(text)
    return analyze(load_graph(open_workspace(str(root)), ["//:all"]))


def commands(found: Analysis) -> dict[str, str]:
    return {str(action.owner): str(action.params["command"]) for action in found.graph.actions}


def test_an_alias_leads_to_the_target_and_keeps_its_own_name_when_requested(tmp_path: Path) -> None:
    found = analysis(
        tmp_path,
        "alias(name = 'second', actual = ':first')\n"
        "alias(name = 'first', actual = 'in.txt')\n"
        "genrule(name = 'g', srcs = [':second'], outs = ['o'], cmd = '$(location :second) $(location in.txt)')\n",
    )
    assert commands(found)["//:g"] == "in.txt in.txt"
    assert found.requested[parse_label("//:second")].label == parse_label("//:in.txt")
    assert [str(target.label) for target in found.graph.requested] == ["//:second", "//:first", "//:g"]


def test_a_target_named_like_its_first_output_gives_all_of_them(tmp_path: Path) -> None:
    found = analysis(
        tmp_path,
        "genrule(name = 'g', outs = ['g', 'h'], cmd = 'touch $(OUTS)')\n"
        "genrule(name = 'u', srcs = [':g'], outs = ['o'], cmd = 'cat $(SRCS)')\n",
    )
    assert commands(found)["//:u"] == "cat modelbuild-out/g modelbuild-out/h"


def test_only_conditions_are_conditions(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="`//:g` is a filegroup and no condition of a `select`"):
        analysis(
            tmp_path,
            "filegroup(name = 'g')\n"
            "filegroup(name = 'f', srcs = select({':g': [], '//conditions:default': []}))\n",
        )


def test_an_output_that_the_rule_forgets_to_make_is_its_mistake(tmp_path: Path) -> None:
    rule = tmp_path / "rules" / "forgetful" / "rule.py"
    rule.parent.mkdir(parents=True)
    rule.write_text(
        "from modelbuild.api import Context, DefaultInfo, Rule\n"
        "class Forgetful(Rule):\n"
        "    def analyze(self, ctx: Context):\n"
        "        return [DefaultInfo((ctx.declare_file('out.txt'),))]\n"
    )
    (rule.parent / "BUILD.models").touch()
    with pytest.raises(AnalysisError, match="none of its actions makes it") as caught:
        analysis(tmp_path, "load('//rules/forgetful:rule.py', 'forgetful')\nforgetful(name = 'f')\n")
    assert caught.value.location is not None
    assert str(caught.value.location) == "BUILD.models:2"


def test_a_command_with_a_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="`//:g`: the command holds a NUL character"):
        analysis(tmp_path, "genrule(name = 'g', outs = ['o'], cmd = 'echo \\0 > $@')\n")


def test_parameters_that_no_key_can_hold_are_refused(tmp_path: Path) -> None:
    rule = tmp_path / "rules" / "rule.py"
    rule.parent.mkdir()
    rule.write_text(
        "from typing import Any\n"
        "from modelbuild.api import PythonTool, Rule\n"
        "class Any_(Rule):\n"
        "    value: Any\n"
        "    def analyze(self, ctx):\n"
        "        out = ctx.declare_file('out')\n"
        "        ctx.run(tool=PythonTool(__file__), mnemonic='Keep', inputs={}, outputs={'out': out},\n"
        "                params={'value': self.value})\n"
        "        return []\n"
    )
    (rule.parent / "BUILD.models").touch()
    with pytest.raises(AnalysisError, match="the parameters of action Keep are not plain") as caught:
        analysis(tmp_path, "load('//rules:rule.py', 'any_')\nany_(name = 'x', value = {1: 2})\n")
    assert caught.value.notes == ("a parameter's key is a string, not 1",)
