"""select on platforms and defines: the most specific condition, ambiguity, no match."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import LoadError, ModelbuildError
from tests.configuration.conftest import Analyze, contents

GENRULE = """
    config_setting(name = "arm_linux", constraint_values = ["@platforms//cpu:aarch64", "@platforms//os:linux"])
    config_setting(name = "fast", constraint_values = ["//platforms:fast"])
    config_setting(name = "debug", define_values = {"mode": "debug"})
    config_setting(name = "debug_fast", define_values = {"mode": "debug", "speed": "fast"})
    config_setting(
        name = "debug_on_fast",
        constraint_values = ["//platforms:fast"],
        define_values = {"mode": "debug"},
    )
    config_setting(name = "debug_too", values = {"define": "mode=debug"})
    genrule(name = "g", outs = ["g.txt"], cmd = select({%s}))
"""


def chosen(found: Analyze, branches: str, platform: str = "//platforms:drone", **defines: str) -> str:
    made = contents(found(GENRULE % branches, "//p:g", platform=platform, **defines))
    return next(iter(made.values()))


def test_a_constraint_value_is_a_condition_and_the_default_takes_the_rest(found: Analyze) -> None:
    branches = "'@platforms//cpu:aarch64': 'arm', '//conditions:default': 'other'"
    assert chosen(found, branches) == "arm"
    assert chosen(found, branches, "//platforms:phone") == "other"
    assert chosen(found, branches, "") == "other"  # This machine.


@pytest.mark.parametrize("order", [1, -1])
def test_the_condition_that_asks_for_more_defines_wins_wherever_it_stands(found: Analyze, order: int) -> None:
    branches = ["':debug': 'debug'", "':debug_fast': 'both'", "'//conditions:default': 'other'"][::order]
    assert chosen(found, ", ".join(branches), mode="debug", speed="fast") == "both"
    assert chosen(found, ", ".join(branches), mode="debug") == "debug"
    assert chosen(found, ", ".join(branches)) == "other"


@pytest.mark.parametrize("order", [1, -1])
def test_the_condition_that_asks_for_more_constraint_values_wins(found: Analyze, order: int) -> None:
    branches = ["':arm_linux': 'both'", "'@platforms//cpu:aarch64': 'arm'"][::order]
    assert chosen(found, ", ".join(branches)) == "both"
    aliased = ["':arm_linux': 'both'", "'@platforms//cpu:arm64': 'arm'"][::order]  # an alias of aarch64
    assert chosen(found, ", ".join(aliased)) == "both"


def test_a_variable_beside_a_constraint_value_is_more_specific_than_either(found: Analyze) -> None:
    branches = "':debug': 'debug', ':fast': 'fast', ':debug_on_fast': 'both'"
    assert chosen(found, branches, "//platforms:fast-drone", mode="debug") == "both"
    with pytest.raises(LoadError, match="several conditions of this `select` hold"):
        chosen(found, "':debug': 'debug', ':fast': 'fast'", "//platforms:fast-drone", mode="debug")


def test_two_conditions_of_which_none_is_more_specific_are_an_error(found: Analyze) -> None:
    with pytest.raises(LoadError, match="several conditions of this `select` hold") as caught:
        chosen(found, "':arm_linux': 'x', ':fast': 'y'", "//platforms:fast-drone")
    assert caught.value.location is not None


def test_two_conditions_with_equal_values_are_none(found: Analyze) -> None:
    assert chosen(found, "':arm_linux': 'x', ':fast': 'x'", "//platforms:fast-drone") == "x"


def test_no_match_tells_what_was_asked_for_and_what_there_is(found: Analyze) -> None:
    with pytest.raises(LoadError, match="no condition of this `select` matches") as caught:
        chosen(found, "':fast': 'x'")
    assert caught.value.notes == (
        "condition `:fast`",
        "target platform `//platforms:drone` has `@platforms//cpu:aarch64`, `@platforms//os:linux`",
    )


def test_no_match_error_is_told_instead(found: Analyze) -> None:
    text = "genrule(name = 'g', outs = ['o'], cmd = select({'//platforms:fast': 'x'}, no_match_error = 'buy a faster one'))"
    with pytest.raises(LoadError, match="buy a faster one"):
        found(text, platform="//platforms:drone")


def test_the_default_value_of_a_setting_holds_where_a_platform_states_none(found: Analyze) -> None:
    branches = "'//platforms:slow': 'slow', '//platforms:fast': 'fast'"
    assert chosen(found, branches) == "slow"
    assert chosen(found, branches, "//platforms:fast-drone") == "fast"


def test_defines_are_conditions(found: Analyze) -> None:
    for condition in (":debug", ":debug_too"):
        branches = f"'{condition}': 'debug', '//conditions:default': 'plain'"
        assert chosen(found, branches, mode="debug") == "debug"
        assert chosen(found, branches, mode="x") == "plain"


def test_an_alias_with_a_select_is_a_condition_too(found: Analyze) -> None:
    """How Bazel's users write `or`."""
    text = """
        config_setting(name = "debug", define_values = {"mode": "debug"})
        alias(name = "arm_or_debug", actual = select({"@platforms//cpu:aarch64": "@platforms//cpu:aarch64", "//conditions:default": ":debug"}))
        alias(name = "again", actual = ":arm_or_debug")
        genrule(name = "g", outs = ["g.txt"], cmd = select({":again": "yes", "//conditions:default": "no"}))
    """

    def made(platform: str, **defines: str) -> str:
        return next(iter(contents(found(text, "//p:g", platform=platform, **defines)).values()))

    assert made("//platforms:drone") == made("//platforms:phone", mode="debug") == "yes"
    assert made("//platforms:phone") == "no"


def test_who_may_use_a_condition(found: Analyze, tmp_path: Path) -> None:
    """As in Bazel: everybody, unless it says otherwise; what it needs is another matter."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v/BUILD.models").write_text("""
package(default_visibility = ["//visibility:private"])
config_setting(name = "open", define_values = {"mode": "x"})
config_setting(name = "shut", define_values = {"mode": "x"}, visibility = ["//visibility:private"])
constraint_setting(name = "grade")
constraint_value(name = "good", constraint_setting = ":grade")
""")
    assert chosen(found, "'//v:open': 'x', '//v:good': 'g', '//conditions:default': 'd'", mode="x") == "x"
    with pytest.raises(LoadError, match="`//v:shut` is not visible from `//p:g`"):
        chosen(found, "'//v:shut': 'x', '//conditions:default': 'd'")
    with pytest.raises(LoadError, match="`//v:good` is not visible from `//p:f`"):
        found("filegroup(name = 'f', target_compatible_with = ['//v:good'])")


def test_an_alias_of_a_condition_and_an_alias_with_a_select(found: Analyze) -> None:
    text = """
        alias(name = "arm", actual = "@platforms//cpu:aarch64")
        alias(name = "it", actual = select({":arm": ":one", "//conditions:default": ":two"}))
        [genrule(name = name, outs = [name + ".txt"], cmd = name) for name in ["one", "two"]]
        filegroup(name = "all", srcs = [":it"])
    """
    assert contents(found(text, "//p:all", platform="//platforms:drone")) == {"p/one.txt": "one"}
    assert contents(found(text, "//p:all", platform="//platforms:phone")) == {"p/two.txt": "two"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config_setting(name = 'c')", "asks for nothing"),
        (
            "config_setting(name = 'c', constraint_values = ['//platforms:slow', '//platforms:fast'])",
            "values of one setting and never both hold",
        ),
        ("config_setting(name = 'c', values = {'cpu': 'k8'})", "no flag that modelbuild has conditions on"),
        ("filegroup(name = 'f', srcs = select({'//toolchains:arm': []}))", "no condition of a `select`"),
        (
            "platform(name = 'x', constraint_values = ['//platforms:slow', '//platforms:fast'])",
            "are both values of `//platforms:speed`",
        ),
        ("platform(name = 'x', parents = ['//platforms:drone', '//platforms:phone'])", "at most one parent"),
        (
            "config_setting(name = 'c', define_values = {'a': 'b'}, values = {'define': 'a=c'})",
            "`a` is to be `b` and `c`, which never both hold",
        ),
        ("platform(name = 'x', ram = 'lots')", "is no size"),
        ("platform(name = 'x', disk = '0 GB')", "is no size"),
        ("platform(name = 'x', context_length = 0)", "attribute `context_length` must be greater than 0"),
        ("platform(name = 'x', latency_ms = -1.0)", "attribute `latency_ms` must be greater than 0"),
        ("constraint_setting(name = 's', default_constraint_value = '//platforms:slow')", "another package"),
    ],
)
def test_mistakes_are_told_at_their_line(found: Analyze, text: str, message: str) -> None:
    with pytest.raises(ModelbuildError, match=message) as caught:
        found(text)
    assert str(caught.value.location).startswith("p/BUILD.models:1")
