from typing import Any

import pytest

from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.provider import DatasetInfo, ModelInfo
from modelbuild.rules.quantize.rule import Quantize
from modelbuild.testing import RuleRunner
from modelbuild.tool import PythonTool

LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}


def runner(**changed: Any) -> RuleRunner:
    made = RuleRunner()
    tree = Artifact("pkg/m/model", "tree")
    model: dict[str, Any] = {"weights": tree, "task": "text_generation", "architecture": LLAMA, **changed}
    made.provide(":model", ModelInfo(**model))
    made.provide(
        ":data", DatasetInfo(Artifact("pkg/d/dataset", "tree"), ("train", "calibration"), "text_generation")
    )
    made.provide(":train", DatasetInfo(Artifact("pkg/t/dataset", "tree"), ("train",), "text_generation"))
    return made


def test_rounding_needs_no_llmcompressor_and_no_seed() -> None:
    action = runner().analyze(Quantize, model=":model", scheme="rtn").action
    assert isinstance(action.tool, PythonTool)
    assert "llmcompressor" not in action.tool.distributions
    assert "seed" not in action.params
    assert set(action.inputs) == {"in/model"}


def test_gptq_calibrates() -> None:
    target = runner().analyze(Quantize, model=":model", scheme="gptq", calibration=":data")
    info = target.get(ModelInfo)
    assert set(target.action.inputs) == {"in/model", "in/calibration"}
    assert (info.dtype, info.format, info.quantization["group_size"]) == ("int4", "compressed-tensors", 32)


def test_gptqmodel_runs_in_its_own_environment_and_writes_its_own_format() -> None:
    target = runner().analyze(
        Quantize, model=":model", scheme="gptq", backend="gptqmodel", calibration=":data", threads=3
    )
    assert isinstance(target.action.tool, PythonTool)
    assert target.action.tool.lock is not None
    assert target.action.threads == 3
    assert target.get(ModelInfo).format == "gptq"


@pytest.mark.parametrize(
    ("model", "attributes", "message"),
    [
        ({}, {"scheme": "gptq"}, "needs data to calibrate"),
        ({}, {"scheme": "gptq", "calibration": ":train"}, "no split `calibration`"),
        ({}, {"scheme": "gptq", "calibration": ":data", "bits": 3}, "3 bits is not supported"),
        ({}, {"scheme": "rtn", "backend": "gptqmodel"}, "implements `gptq` only"),
        ({}, {"scheme": "rtn", "group_size": 24}, "does not divide `hidden_size` 64"),
        ({}, {"scheme": "rtn", "group_size": 64}, "does not divide `intermediate_size` 96"),
        ({}, {"scheme": "rtn", "bits": 5}, "bits"),
        ({"quantization": {"bits": 4}}, {"scheme": "rtn"}, "quantized already"),
        ({"task": "image_classification"}, {"scheme": "gptq"}, "language models only"),
    ],
)
def test_what_cannot_be_quantized_is_refused(
    model: dict[str, Any], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelbuildError, match=message):
        runner(**model).analyze(Quantize, model=":model", **attributes)
