from typing import Any

import pytest

from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.provider import DeviceBinaryInfo, ModelInfo, RunInfo
from modelbuild.rules.gguf.rule import Gguf
from modelbuild.testing import RuleRunner

INT4 = {"scheme": "gptq", "bits": 4, "group_size": 32, "symmetric": True}
LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2}


def runner(**changed: Any) -> RuleRunner:
    made = RuleRunner()
    tree = Artifact("pkg/m/model", "tree")
    model: dict[str, Any] = {"weights": tree, "task": "text_generation", "architecture": LLAMA, **changed}
    made.provide(":model", ModelInfo(**model))
    return made


@pytest.mark.parametrize(
    ("model", "type_", "kind"),
    [
        ({}, "auto", "F32"),
        ({"dtype": "float16"}, "auto", "F16"),
        ({}, "Q4_0", "Q4_0"),
        ({"quantization": INT4}, "auto", "Q4_0"),
        ({"quantization": {**INT4, "bits": 8, "group_size": 0}}, "auto", "Q8_0"),
    ],
)
def test_the_format_is_known_before_anything_runs(model: dict[str, Any], type_: str, kind: str) -> None:
    target = runner(**model).analyze(Gguf, model=":model", type=type_)
    info = target.get(DeviceBinaryInfo)
    assert (info.format, info.runtime) == (f"gguf:{kind}", "llama.cpp")
    assert target.get(RunInfo).inputs == {"model": info.binary}


@pytest.mark.parametrize(
    ("model", "type_", "message"),
    [
        ({"quantization": {**INT4, "symmetric": False}}, "auto", "asymmetric"),
        ({"quantization": {**INT4, "group_size": 16}}, "auto", "not made of blocks of 32"),
        ({"quantization": INT4}, "Q8_0", "4-bit weights are not Q8_0"),
        ({"architecture": LLAMA | {"intermediate_size": 100}}, "Q4_0", "`intermediate_size` of .* is 100"),
        ({"architecture": LLAMA | {"head_dim": 8}}, "Q8_0", "head_dim` of .* is 16"),
        ({"task": "image_classification"}, "auto", "GGUF takes language models"),
    ],
)
def test_what_gguf_cannot_hold_is_refused(model: dict[str, Any], type_: str, message: str) -> None:
    with pytest.raises(ModelbuildError, match=message):
        runner(**model).analyze(Gguf, model=":model", type=type_)


def test_a_second_rounding_can_be_allowed() -> None:
    target = runner(quantization=INT4).analyze(Gguf, model=":model", type="Q8_0", allow_requantize=True)
    assert target.get(DeviceBinaryInfo).format == "gguf:Q8_0"
