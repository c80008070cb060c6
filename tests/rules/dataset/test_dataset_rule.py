from typing import Any

import pytest

from modelbuild.errors import ModelbuildError
from modelbuild.provider import DatasetInfo, DefaultInfo
from modelbuild.rules.dataset.rule import Dataset
from modelbuild.testing import RuleRunner
from modelbuild.tool import PythonTool


def runner() -> RuleRunner:
    made = RuleRunner()
    made.source("missions.py")
    return made


def test_a_dataset_is_generated_and_validated() -> None:
    target = runner().analyze(Dataset, generator="missions.py", args={"train": 3}, seed=7)
    generate, validate = target.actions
    assert generate.params["args"] == {"train": 3}
    assert generate.params["seed"] == 7
    info = target.get(DatasetInfo)
    assert info.splits == ("train", "calibration", "eval")
    assert validate.inputs["in/dataset"] == info.directory
    default = target.get(DefaultInfo)
    assert default.files == (info.directory,)
    assert default.validations == (validate.primary_output,)


def test_what_the_validation_asks_does_not_reach_the_generation() -> None:
    plain = runner().analyze(Dataset, generator="missions.py")
    strict = runner().analyze(Dataset, generator="missions.py", completion_format="json")
    assert plain.actions[0].params == strict.actions[0].params
    assert plain.actions[1].params != strict.actions[1].params


def test_packages_are_part_of_the_tool() -> None:
    target = runner().analyze(Dataset, generator="missions.py", packages=["scikit-learn"])
    assert isinstance(target.actions[0].tool, PythonTool)
    assert "scikit-learn" in target.actions[0].tool.distributions


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"splits": ["train", "train"]}, "names a split twice"),
        ({"task": "image_classification", "completion_format": "json"}, "says nothing about rows"),
        ({"task": "translation"}, "task"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_attributes_are_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelbuildError, match=message):
        runner().analyze(Dataset, generator="missions.py", **attributes)
