from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from modelbuild.analysis.context import Context
from modelbuild.artifact import Artifact
from modelbuild.errors import AnalysisError
from modelbuild.label import Label
from modelbuild.provider import DatasetInfo, DefaultInfo, DeviceBinaryInfo, ModelInfo, Provider, RunInfo
from modelbuild.rules.onnx.rule import Onnx


@dataclass
class Target:
    label: Label
    providers: dict[type[Provider], Provider]
    rule: str = "quantize"


@dataclass
class Attributes:
    targets: dict[str, Target] = field(default_factory=dict)
    package: str = "targets/digits"
    repository: str = ""

    def add(self, name: str, info: Any) -> None:
        self.targets[name] = Target(Label("", self.package, name), {type(info): info})

    def resolve(self, label: Any) -> Any:
        return self.targets[label.name]


def model(**changes: Any) -> ModelInfo:
    weights = Artifact("targets/digits/int8/model", "tree")
    plain = ModelInfo(weights=weights, task="image_classification", architecture={})
    return replace(plain, **changes)


def analyze(info: Any, **attributes: Any) -> Any:
    context = Attributes()
    context.add("int8", info)
    context.add("data", DatasetInfo(Artifact("targets/digits/data", "tree"), ("train", "eval"), info.task))
    context.add("trained", DatasetInfo(Artifact("targets/digits/trained", "tree"), ("train",), info.task))
    rule = Onnx.model_validate({"name": "binary", "model": ":int8", **attributes}, context=context)
    ctx = Context(Label("", "targets/digits", "binary"))
    providers = {type(provider): provider for provider in rule.analyze(ctx)}
    return ctx, providers


def test_one_action_from_the_weights_to_one_file() -> None:
    ctx, providers = analyze(model(), examples=":data")
    (action,) = ctx.actions
    assert dict(action.inputs) == {"in/model": Artifact("targets/digits/int8/model", "tree")}
    assert dict(action.params) == {"opset": 18, "dynamic_batch": True}
    binary = providers[DeviceBinaryInfo]
    assert (binary.format, binary.runtime) == ("onnx", "onnxruntime")
    assert providers[DefaultInfo].files == (binary.binary,) == tuple(action.outputs.values())
    # The data that `run` shows is no input of the export: other data must not export again.
    assert set(providers[RunInfo].inputs) == {"onnx", "dataset"}
    assert providers[RunInfo].tool.source.is_file()
    assert action.tool.source.is_file()


@pytest.mark.parametrize(
    ("changes", "attributes", "message"),
    [
        ({"task": "text_generation"}, {}, "does not export yet"),
        ({"quantization": {"bits": 4, "group_size": 32}}, {}, "4-bit weights"),
        ({"quantization": {"bits": 8, "group_size": 32}}, {}, "several scales a row, which opset 18"),
        ({}, {"examples": ":trained"}, "has no split `eval`"),
    ],
)
def test_what_onnx_cannot_hold_is_an_error_before_anything_runs(
    changes: Any, attributes: Any, message: str
) -> None:
    with pytest.raises(AnalysisError, match=message):
        analyze(model(**changes), **attributes)


def test_groups_are_fine_with_an_opset_that_knows_them() -> None:
    ctx, _ = analyze(model(quantization={"bits": 8, "group_size": 32}), opset=21)
    assert len(ctx.actions) == 1
