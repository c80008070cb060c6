"""The declaration of the shared export; what the tool makes is in tests/rules/onnx."""

from dataclasses import replace
from typing import Any

import pytest

from modelbuild.actions.action import Action
from modelbuild.analysis.context import Context
from modelbuild.api import AnalysisError, Artifact, Label, ModelInfo, PythonTool, declare_onnx_export

TEXT = ModelInfo(Artifact("m/student/model", "tree"), "text_generation", {"model_type": "llama"})
IMAGES = replace(TEXT, task="image_classification")


def declared(model: ModelInfo, name: str = "binary", **arguments: Any) -> tuple[Action, Artifact]:
    ctx = Context(Label("", "m", name))
    tree = declare_onnx_export(ctx, model, **arguments)
    (action,) = ctx.actions
    return action, tree


def identity(action: Action) -> Any:
    return action.tool, dict(action.params), dict(action.inputs), sorted(action.outputs)


def test_two_targets_declare_the_very_same_action() -> None:
    one, first = declared(TEXT, "one", sequence_length=32, prefix="ort/")
    two, second = declared(replace(TEXT, task="language_modeling"), "two", sequence_length=32, prefix="iree/")
    assert identity(one) == identity(two)
    assert (first.path, second.path) == ("m/one/ort/onnx", "m/two/iree/onnx")
    assert one.platform == ()
    assert isinstance(one.tool, PythonTool)
    assert one.tool.source.is_file()


def test_the_length_counts_for_text_only() -> None:
    assert identity(declared(TEXT, sequence_length=32)[0]) != identity(declared(TEXT, sequence_length=64)[0])
    image = declared(IMAGES, sequence_length=32)[0]
    assert identity(image) == identity(declared(IMAGES, sequence_length=64)[0])
    assert dict(image.params) == {"task": "image_classification"}


def test_another_task_is_refused() -> None:
    with pytest.raises(AnalysisError, match="`//m:binary`: a model for `speech` cannot be exported"):
        declared(replace(TEXT, task="speech"))
