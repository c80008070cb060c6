from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from modelbuild.attribute import Dep, File, Files
from modelbuild.cli import reference
from modelbuild.cli.help import rule_lines
from modelbuild.cli.rule_description import describe, type_words
from modelbuild.cli.terminal import Terminal
from modelbuild.provider import DatasetInfo, ModelInfo, Provider
from modelbuild.rule import Rule
from modelbuild.testing import assert_golden


class ShrinkModel(Rule):
    """Makes `model` smaller, by a
    method of choice.

    More about it: one paragraph that is long enough to be wrapped, because a terminal is only so many
    columns wide and nobody reads past them.

        shrink_model(
            name = "small",
            model = ":big",
        )
    """

    determinism = "numeric"

    model: Dep[ModelInfo]
    """What is made smaller."""
    method: Literal["cut", "fold"] = "cut"
    """How."""
    ratio: float = Field(default=0.5, gt=0, le=1, description="How much of it is left.")
    calibration: list[Dep[DatasetInfo]] = []
    """Data to
    measure with."""
    extra: dict[str, Any] = {}
    script: File | None = None


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "integer"),
        (bool, "boolean"),
        (str | None, "string"),
        (list[str], "list of strings"),
        (list[list[int]], "list of lists of integers"),
        (Dep[ModelInfo], "label of ModelInfo"),
        (Dep[ModelInfo] | None, "label of ModelInfo"),
        (Dep[Provider], "label"),
        (list[Files], "list of labels of files"),
        (File, "label of one file"),
        (Literal["a", 2], 'one of "a", 2'),
        (dict[str, float], "dictionary of strings to numbers"),
        (dict[str, Any], "dictionary of strings to any values"),
        (int | list[int], "integer or list of integers"),
        (Annotated[int, Field(ge=1)], "integer"),
    ],
)
def test_type_words(annotation: Any, words: str) -> None:
    assert type_words(annotation) == words


def test_description() -> None:
    rule = describe(ShrinkModel)
    assert rule.name == "shrink_model"
    assert rule.summary == "Makes `model` smaller, by a method of choice."
    assert [a.name for a in rule.attributes] == ["model", "method", "ratio", "calibration", "extra", "script"]
    ratio = rule.attributes[2]
    assert (ratio.type, ratio.default, ratio.text) == (
        "number, more than 0, at most 1",
        "0.5",
        "How much of it is left.",
    )
    assert rule.attributes[0].default is None
    assert rule.attributes[3].text == "Data to measure with."
    assert rule.example.startswith("shrink_model(\n    name")


def test_help_text() -> None:
    terminal = Terminal(color="never", out=io.StringIO(), err=io.StringIO())
    assert_golden("cli/help-rule.txt", "\n".join(rule_lines(describe(ShrinkModel), terminal)) + "\n")


def test_reference_page() -> None:
    assert_golden("cli/reference-rule.md", reference.rule_page(describe(ShrinkModel)))
