"""What a branch of a select leads to is wrong for those who take it, and for nobody else."""

import pytest

from modelbuild.errors import LoadError, ModelbuildError
from tests.configuration.conftest import Analyze, contents

SETTING = """
config_setting(name = "debug", define_values = {"mode": "debug"})
"""


def both(found: Analyze, text: str, *patterns: str) -> tuple[dict[str, str], ModelbuildError]:
    """What is made without the branch `:debug`, and the error with it."""
    made = contents(found(SETTING + text, *patterns))
    with pytest.raises(ModelbuildError) as error:
        found(SETTING + text, *patterns, mode="debug")
    return made, error.value


@pytest.mark.parametrize(
    ("leads_to", "message"),
    [
        ("//nowhere:x", "there is no package `//nowhere`"),
        (":gone", "there is no target `//p:gone`"),
        ("@nowhere//p:x", "no installed package provides repository `@nowhere`"),
        ("//toolchains:rule.py", "there is no target `//toolchains:rule.py`"),
    ],
)
def test_a_label_that_leads_nowhere(found: Analyze, leads_to: str, message: str) -> None:
    text = f"""
genrule(
    name = "t",
    srcs = select({{
        ":debug": ["{leads_to}"],
        "//conditions:default": [],
    }}),
    outs = ["o"],
    cmd = "echo > $@",
)
"""
    made, error = both(found, text)
    assert list(made) == ["p/o"]
    assert error.message == message
    assert str(error.location).startswith("p/BUILD.models:7:")


def test_a_target_with_an_error_and_what_needs_it(found: Analyze) -> None:
    text = """
genrule(name = "t", srcs = select({":debug": [":a"], "//conditions:default": []}), outs = ["o"], cmd = "echo > $@")
filegroup(name = "a", srcs = [":b"])
filegroup(name = "b", srcs = ["//nowhere:x"])
"""
    made, error = both(found, text, "//p:t")
    assert list(made) == ["p/o"]
    assert error.message == "there is no package `//nowhere`"
    with pytest.raises(LoadError, match="there is no package `//nowhere`"):
        found(SETTING + text, "//p:all")  # `a` and `b` are asked for themselves.


def test_a_package_with_an_error(found: Analyze) -> None:
    text = """
genrule(name = "t", srcs = select({":debug": ["//q:x"], "//conditions:default": []}), outs = ["o"], cmd = "echo > $@")
"""
    wrong = 'filegroup(name = "x", nope = 1)'
    assert list(contents(found(SETTING + text, more={"q/BUILD.models": wrong}))) == ["p/o"]
    with pytest.raises(LoadError, match="`filegroup` has no attribute `nope`"):
        found(SETTING + text, more={"q/BUILD.models": wrong}, mode="debug")
    with pytest.raises(LoadError, match="`filegroup` has no attribute `nope`"):
        found(SETTING + text, "//...", more={"q/BUILD.models": wrong})


def test_a_package_with_an_error_among_the_registered_toolchains(found: Analyze) -> None:
    """It was only noted when a branch led to it; a wildcard that registers toolchains must not pass it over."""
    text = """
load("//toolchains:rule.py", "compile")
compile(name = "t", model = ":m")
filegroup(name = "m", srcs = select({":debug": ["//q:x"], "//conditions:default": []}))
"""
    wrong = {"q/BUILD.models": 'toolchain(name = "x", nope = 1)'}
    with pytest.raises(LoadError, match="`toolchain` has no attribute `nope`"):
        found(SETTING + text, toolchains=("//q/...", "//toolchains:all"), more=wrong)


def test_a_branch_that_leads_back(found: Analyze) -> None:
    text = """
genrule(name = "a", srcs = select({":debug": [":c"], "//conditions:default": []}), outs = ["a.txt"], cmd = "echo > $@")
genrule(name = "b", srcs = [":a"], outs = ["b.txt"], cmd = "cat $< > $@")
genrule(name = "c", srcs = [":b"], outs = ["c.txt"], cmd = "cat $< > $@")
"""
    for first in ("a", "b", "c"):  # The walk starts anywhere.
        made, error = both(found, text, f"//p:{first}", "//p:all")
        assert set(made) == {"p/a.txt", "p/b.txt", "p/c.txt"}
        assert error.message == f"`//p:{first}` depends on itself"
        assert len(error.notes) == 3


def test_all_that_needs_a_branch_depends_on_the_platform(found: Analyze) -> None:
    """In a circle that no platform closes, each platform still has files of its own."""
    text = """
load("//toolchains:rule.py", "matrix")
genrule(
    name = "a",
    srcs = select({"@platforms//os:ios": [":b"], "//conditions:default": []}),
    outs = ["a.txt"],
    cmd = select({"@platforms//os:linux": "echo linux > $@", "//conditions:default": "echo other > $@"}),
)
genrule(name = "b", srcs = [":c"], outs = ["b.txt"], cmd = "cat $< > $@")
genrule(
    name = "c",
    srcs = select({"@platforms//os:linux": [":a"], "//conditions:default": []}),
    outs = ["c.txt"],
    cmd = "cat $(SRCS) /dev/null > $@",
)
matrix(name = "m", models = [":b"], platforms = ["//platforms:drone", "//platforms:phone"])
"""
    for first in ("a", "b", "c"):
        made = contents(found(text, f"//p:{first}", "//p:m"))
        assert {path for path in made if path.endswith("b.txt")} >= {
            "@platforms/drone/p/b.txt",
            "@platforms/phone/p/b.txt",
        }


def test_what_is_known_to_be_wrong_is_told_once_with_keep_going(found: Analyze) -> None:
    text = """
genrule(name = "t", srcs = select({":debug": [":a"], "//conditions:default": []}), outs = ["o"], cmd = "echo > $@")
filegroup(name = "a", srcs = ["//nowhere:x"])
"""
    analysis = found(SETTING + text, keep_going=True)
    assert list(contents(analysis)) == ["p/o"]
    assert analysis.errors == ()
