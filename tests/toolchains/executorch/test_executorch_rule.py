"""What the ExecuTorch toolchain declares, refuses and predicts; nothing is exported here."""

from typing import Any

import pytest

from modelbuild.api import Artifact, Conversion, ModelInfo, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import HERE, LLAMA, VIT, device
from toolchains.executorch.rule import ExecutorchToolchain

TEXT = ModelInfo(Artifact("model", "tree"), "text_generation", LLAMA)
INT8 = {"scheme": "rtn", "bits": 8, "group_size": 0, "symmetric": True, "embeddings": "rtn"}


def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(ExecutorchToolchain).get(RuntimeToolchainInfo)


def model(**changed: Any) -> ModelInfo:
    return ModelInfo(**{"weights": TEXT.weights, "task": "text_generation", "architecture": LLAMA, **changed})


def test_all_platforms_share_one_action() -> None:
    made = [
        RuleRunner()
        .convert(toolchain(), Conversion(TEXT, "executorch:int8", device(cpu, system), sequence_length=32))
        .action
        for cpu, system in (("x86_64", "linux"), ("aarch64", "android"), ("aarch64", "ios"))
    ]
    assert made[0].params == {"bits": 8, "task": "language_model", "sequence_length": 32}
    assert made[0].params == made[1].params == made[2].params
    assert not any(each.platform for each in made)


def test_only_linux_on_x86_64_runs_it_here() -> None:
    info = toolchain()
    assert info.device_tool(HERE) is not None
    assert info.device_tool(device("aarch64")) is None
    assert info.device_tool(device("x86_64", "windows")) is None


@pytest.mark.parametrize(
    ("format_", "changed", "reason"),
    [
        ("executorch:int4", {}, "makes executorch:fp32, executorch:int8"),
        ("executorch:fp32", {"task": "speech"}, "not one for speech"),
        ("executorch:fp32", {"architecture": {"model_type": "gpt2"}}, "not a model of type `gpt2`"),
        ("executorch:int8", {"quantization": INT8 | {"bits": 4}}, "round its 4-bit weights a second time"),
        ("executorch:int8", {"quantization": INT8 | {"group_size": 32}}, "one scale a row"),
        ("executorch:int8", {"quantization": INT8 | {"symmetric": False}}, "are symmetric"),
        ("executorch:int8", {"quantization": INT8}, ""),
        ("executorch:int8", {}, ""),
        ("executorch:fp32", {"quantization": INT8 | {"bits": 4, "group_size": 32}}, ""),
    ],
)
def test_what_is_refused(format_: str, changed: dict[str, Any], reason: str) -> None:
    found = toolchain().refusal(Conversion(model(**changed), format_, HERE))
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_big_endian_device_is_refused() -> None:
    assert "little-endian" in toolchain().refusal(Conversion(TEXT, "executorch:fp32", device("s390x")))


def test_weights_are_told_to_the_byte() -> None:
    info = toolchain()
    floats = info.footprint(Conversion(TEXT, "executorch:fp32", HERE)).weights
    tied = 280 * 64
    parameters = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 96 + 2 * 64) + 64 + tied
    assert floats == 4 * (parameters + tied)
    rows = 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64) + 2 * 280
    vectors = 5 * 64
    integers = info.footprint(Conversion(TEXT, "executorch:int8", HERE)).weights
    assert integers == (parameters - vectors + tied) + 4 * rows + 4 * vectors


def test_floats_beside_integers_stay_floats() -> None:
    info = toolchain()
    kept = model(quantization=INT8 | {"embeddings": "float"})
    more = info.footprint(Conversion(kept, "executorch:int8", HERE)).weights
    all_integers = info.footprint(Conversion(model(quantization=INT8), "executorch:int8", HERE)).weights
    assert more - all_integers == 2 * (3 * 280 * 64 - 4 * 280)
    images = model(task="image_classification", architecture=VIT, quantization=INT8 | {"embeddings": "float"})
    plain = model(task="image_classification", architecture=VIT, quantization=INT8)
    assert info.footprint(Conversion(images, "executorch:int8", HERE)) == info.footprint(
        Conversion(plain, "executorch:int8", HERE)
    )
