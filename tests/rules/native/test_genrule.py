"""genrule: expansion of `cmd` as in Bazel."""

from typing import Any

import pytest

from modelbuild.errors import AnalysisError, LoadError
from modelbuild.provider import DefaultInfo
from modelbuild.rules.native.filegroup import Filegroup
from modelbuild.rules.native.genrule import Genrule
from modelbuild.testing import RuleRunner, RuleTarget


@pytest.fixture
def runner() -> RuleRunner:
    runner = RuleRunner("pkg")
    runner.source("a.txt")
    runner.source("b.txt")
    runner.source("//tools:run.sh")
    runner.analyze(Filegroup, name="both", srcs=["a.txt", "b.txt"])
    return runner


def genrule(runner: RuleRunner, cmd: str, **attributes: Any) -> RuleTarget:
    defaults: dict[str, Any] = {"name": "g", "srcs": ["a.txt"], "outs": ["o.txt"], "cmd": cmd}
    return runner.analyze(Genrule, **(defaults | attributes))


def command(target: RuleTarget) -> str:
    return str(target.action.params["command"])


@pytest.mark.parametrize(
    ("cmd", "expected"),
    [
        ("cat $< > $@", "cat pkg/a.txt > modelbuild-out/pkg/o.txt"),
        ("cat $(SRCS) > $(OUTS)", "cat pkg/a.txt > modelbuild-out/pkg/o.txt"),
        ("cat $(<) > $(@)", "cat pkg/a.txt > modelbuild-out/pkg/o.txt"),
        ("ls $(@D) $(RULEDIR)", "ls modelbuild-out/pkg modelbuild-out/pkg"),
        ("echo $$HOME $$(date)", "echo $HOME $(date)"),
        ("cat $(location a.txt) $(location :o.txt)", "cat pkg/a.txt modelbuild-out/pkg/o.txt"),
        ("cat $(execpath //pkg:a.txt)", "cat pkg/a.txt"),
        ("echo $(rootpath a.txt) $(rootpath :o.txt)", "echo pkg/a.txt pkg/o.txt"),
    ],
)
def test_variables(runner: RuleRunner, cmd: str, expected: str) -> None:
    assert command(genrule(runner, cmd)) == expected


def test_groups_and_tools(runner: RuleRunner) -> None:
    target = genrule(
        runner,
        "$(location //tools:run.sh) $(locations :both) $(SRCS)",
        srcs=[":both"],
        tools=["//tools:run.sh"],
    )
    assert command(target) == "tools/run.sh pkg/a.txt pkg/b.txt pkg/a.txt pkg/b.txt"
    assert set(target.action.inputs) == {"pkg/a.txt", "pkg/b.txt", "tools/run.sh"}


def test_several_outputs(runner: RuleRunner) -> None:
    target = genrule(runner, "touch $(OUTS); ls $(@D)", outs=["x", "sub/y"])
    assert command(target) == "touch modelbuild-out/pkg/x modelbuild-out/pkg/sub/y; ls modelbuild-out/pkg"
    assert [file.path for file in target.get(DefaultInfo).files] == ["pkg/x", "pkg/sub/y"]


def test_a_generated_file_is_a_label(runner: RuleRunner) -> None:
    genrule(runner, "echo > $@", name="first", outs=["made.txt"])
    assert command(genrule(runner, "cat $< > $@", srcs=[":made.txt"])).startswith(
        "cat modelbuild-out/pkg/made.txt"
    )


def test_locations_are_sorted_as_bazel_sorts_them(runner: RuleRunner) -> None:
    genrule(runner, "touch $(OUTS)", name="made", outs=["z.txt", "y.txt"])
    runner.source("//a:first.txt")
    runner.analyze(Filegroup, name="mixed", srcs=["//a:first.txt", ":made", "a.txt"])
    target = genrule(runner, "$(locations :mixed); $(SRCS)", srcs=[":mixed"])
    made = ["modelbuild-out/pkg/y.txt", "modelbuild-out/pkg/z.txt"]
    assert command(target) == (
        f"a/first.txt {made[0]} {made[1]} pkg/a.txt; a/first.txt {made[1]} {made[0]} pkg/a.txt"
    )


def test_an_output_may_be_written_as_a_label(runner: RuleRunner) -> None:
    target = genrule(runner, "touch $(OUTS)", outs=[":x", "//pkg:y"])
    assert [file.path for file in target.get(DefaultInfo).files] == ["pkg/x", "pkg/y"]


@pytest.mark.parametrize(
    ("cmd", "message"),
    [
        ("cat $(location :b.txt)", "names nothing that the rule reads or makes"),
        ("cat $(nothing)", r"`\$\(nothing\)` is no variable"),
        ("cost: $5", "starts no variable"),
        ("cat $^", "starts no variable"),
        ("", "there is no `cmd`"),
        ("$(location :both)", "needs exactly one file, and there are 2"),
    ],
)
def test_errors(runner: RuleRunner, cmd: str, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        genrule(runner, cmd, srcs=[":a.txt", ":both"])


def test_short_forms_need_exactly_one_file(runner: RuleRunner) -> None:
    with pytest.raises(AnalysisError, match=r"`\$<` needs exactly one source, and there are 2"):
        genrule(runner, "cat $<", srcs=[":both"])
    with pytest.raises(AnalysisError, match=r"`\$@` needs exactly one output, and there are 2"):
        genrule(runner, "echo > $@", outs=["x", "y"])


def test_attributes_are_checked(runner: RuleRunner) -> None:
    with pytest.raises(LoadError, match="comand"):
        runner.analyze(Genrule, name="g", outs=["o"], cmd="x", comand="y")
    with pytest.raises(AnalysisError, match="`outs` is empty"):
        genrule(runner, "x", outs=[])
    with pytest.raises(AnalysisError, match="`executable` needs exactly one output"):
        genrule(runner, "x", outs=["a", "b"], executable=True)
