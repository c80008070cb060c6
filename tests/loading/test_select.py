"""select(): concatenation, branches, defaults."""

from __future__ import annotations

import pytest

from modelbuild.errors import LoadError
from modelbuild.loading.select import (
    Condition,
    Select,
    choose,
    choose_default,
    resolve_select,
    resolve_value,
    variants,
)

DEFAULT = "//conditions:default"


def test_a_lone_select_takes_its_branch_whatever_its_type() -> None:
    assert resolve_value([Select(((DEFAULT, 4),))], choose_default) == 4
    assert resolve_value([Select(((DEFAULT, ["a"]),))], choose_default) == ["a"]


def test_selects_are_concatenated_in_order() -> None:
    value = ["a", Select(((DEFAULT, ["b"]),)), "c", Select(((DEFAULT, None),))]
    assert resolve_value(value, choose_default) == ["a", "b", "c"]


def test_none_leaves_the_attribute_out() -> None:
    assert resolve_select({"bits": [Select(((DEFAULT, None),))], "name": "x"}, choose_default) == {
        "name": "x"
    }


def test_no_match_says_what_was_asked_for() -> None:
    with pytest.raises(LoadError, match="only for drones"):
        choose_default(Select(((":a", 1),), "only for drones"))
    with pytest.raises(LoadError) as caught:
        choose_default(Select(((":a", 1), (":b", 2))))
    assert caught.value.notes == ("condition `:a`", "condition `:b`")


def test_variants_show_every_branch() -> None:
    attributes = {
        "name": "x",
        "bits": [Select(((":a", 4), (":b", 8), (":c", 2)))],
        "srcs": ["s", Select(((":a", ["t"]), (DEFAULT, [])))],
    }
    found = variants(attributes)
    assert [v["bits"] for v in found] == [4, 8, 2]
    assert [v["srcs"] for v in found] == [["s", "t"], ["s"], ["s"]]


_CONDITIONS = {
    ":arm": Condition(True, frozenset({"arm"})),
    ":arm_linux": Condition(True, frozenset({"arm", "linux"})),
    ":drone": Condition(True, frozenset({"drone"})),
    ":x86": Condition(False, frozenset({"x86"})),
}


@pytest.mark.parametrize(
    ("branches", "chosen"),
    [
        ({":x86": 1, ":arm": 2}, ":arm"),
        ({":arm": 1, ":arm_linux": 2}, ":arm_linux"),
        ({":arm_linux": 1, ":arm": 2, DEFAULT: 3}, ":arm_linux"),
        ({":x86": 1, DEFAULT: 3}, DEFAULT),
        ({":arm": 1, ":drone": 1}, ":arm"),
    ],
)
def test_the_most_specific_condition_wins(branches: dict[str, int], chosen: str) -> None:
    assert choose(Select(tuple(branches.items())), _CONDITIONS.__getitem__) == chosen


def test_conditions_that_contradict_each_other() -> None:
    with pytest.raises(LoadError, match="none is the most specific"):
        choose(Select(((":arm", 1), (":drone", 2))), _CONDITIONS.__getitem__)
