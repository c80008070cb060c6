from typing import Any

import pytest

from modelbuild import provider
from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.provider import DatasetInfo, DeviceBinaryInfo, MetricsInfo, ModelInfo
from modelbuild.rules.evaluate.rule import Evaluate, QualityGateTest, QualityTable
from modelbuild.testing import RuleRunner
from modelbuild.tool import PythonTool


def runner() -> RuleRunner:
    made = RuleRunner()
    made.provide(":model", ModelInfo(Artifact("m", "tree"), "text_generation", {}))
    made.provide(":vit", ModelInfo(Artifact("v", "tree"), "image_classification", {}))
    made.provide(":gguf", DeviceBinaryInfo(Artifact("g", "file"), "gguf:Q4_0", "llama.cpp"))
    made.provide(":onnx", DeviceBinaryInfo(Artifact("o", "file"), "onnx", "onnxruntime"))
    made.provide(":data", DatasetInfo(Artifact("d", "tree"), ("train", "eval"), "text_generation"))
    made.provide(":images", DatasetInfo(Artifact("i", "tree"), ("eval",), "image_classification"))
    made.provide(":good", MetricsInfo(Artifact("x", "file"), runner_label(made, ":model")))
    made.provide(":bad", MetricsInfo(Artifact("y", "file"), runner_label(made, ":gguf")))
    return made


def runner_label(made: RuleRunner, name: str) -> Any:
    return next(label for label in made.targets if label.name == name[1:])


@pytest.mark.parametrize(
    ("subject", "dataset", "tool"),
    [
        (":model", ":data", "tool.py"),
        (":gguf", ":data", "gguf_tool.py"),
        (":vit", ":images", "image_tool.py"),
        (":onnx", ":images", "onnx_tool.py"),
    ],
)
def test_the_subject_decides_what_runs_it(subject: str, dataset: str, tool: str) -> None:
    action = runner().analyze(Evaluate, subject=subject, dataset=dataset).action
    assert isinstance(action.tool, PythonTool)
    assert action.tool.source.name == tool
    assert action.tool.source.is_file()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"subject": ":model", "dataset": ":images"}, "is a model for `text_generation`"),
        ({"subject": ":onnx", "dataset": ":data"}, "cannot be asked of `onnxruntime`"),
        ({"subject": ":data", "dataset": ":data"}, "neither a model nor a device binary"),
        ({"subject": ":model", "dataset": ":data", "split": "test"}, "has no split `test`"),
        (
            {"subject": ":model", "dataset": ":data", "parent": ":vit"},
            "is a model for `image_classification`",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelbuildError, match=message):
        runner().analyze(Evaluate, **attributes)


def test_a_gate_is_a_test_with_a_verdict() -> None:
    bounds = {"canonical.exact_match": 0.03}
    target = runner().analyze(
        QualityGateTest, name="gate_test", metrics=":bad", baseline=":good", at_most_drop=bounds
    )
    assert QualityGateTest.is_test
    assert target.get(provider.TestInfo).verdict.path.endswith("verdict.json")
    assert set(target.action.inputs) == {"in/metrics", "in/baseline"}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "passes everything"),
        ({"at_least": {"exact_match": 0.9}}, "not a metric of a slice"),
        ({"at_least": {"a.b.c": 0.9}}, "not a metric of a slice"),
        ({"at_least": {"all.accuracy": float("nan")}}, "is no number"),
        ({"at_most_drop": {"all.accuracy": 0.1}}, "belong together"),
        ({"at_least": {"all.accuracy": 0.1}, "baseline": ":good"}, "belong together"),
    ],
)
def test_a_gate_that_does_not_gate_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelbuildError, match=message):
        runner().analyze(QualityGateTest, name="gate_test", metrics=":bad", **attributes)


def test_the_table_keeps_the_order() -> None:
    action = runner().analyze(QualityTable, metrics=[":good", ":bad"]).action
    assert action.params == {"steps": ["model", "gguf"]}
    assert [artifact.path for artifact in action.inputs.values()] == ["x", "y"]
