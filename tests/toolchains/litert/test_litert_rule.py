"""What the LiteRT toolchain declares, refuses and predicts; nothing is converted here."""

from typing import Any

import pytest

from modelbuild.api import Artifact, Conversion, ModelInfo, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import HERE, LLAMA, VIT, device
from toolchains.litert.rule import LitertToolchain

TEXT = ModelInfo(Artifact("model", "tree"), "text_generation", LLAMA)
INT8 = {"scheme": "rtn", "bits": 8, "group_size": 0, "symmetric": True, "embeddings": "rtn"}


def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(LitertToolchain).get(RuntimeToolchainInfo)


def model(**changed: Any) -> ModelInfo:
    return ModelInfo(**{"weights": TEXT.weights, "task": "text_generation", "architecture": LLAMA, **changed})


def test_all_platforms_share_one_action() -> None:
    made = [
        RuleRunner()
        .convert(toolchain(), Conversion(TEXT, "litert:int8", device(cpu, system), sequence_length=32))
        .action
        for cpu, system in (("x86_64", "linux"), ("aarch64", "android"), ("aarch64", "ios"))
    ]
    assert made[0].params == {"bits": 8, "task": "language_model", "sequence_length": 32}
    assert made[0].params == made[1].params == made[2].params
    assert not any(each.platform for each in made)


def test_what_runs_where() -> None:
    info = toolchain()
    here, there = info.device_tool(HERE), info.device_tool(device("aarch64"))
    assert here is not None
    assert here.lock is not None
    assert here.lock.platform == ""
    assert there is not None
    assert there.lock is not None
    assert there.lock.platform == "aarch64-manylinux_2_28"
    assert info.device_tool(device("aarch64", "android")) is None


@pytest.mark.parametrize(
    ("format_", "changed", "reason"),
    [
        ("litert:int4", {}, "makes litert:fp32, litert:int8"),
        ("litert:fp32", {"task": "speech"}, "not one for speech"),
        ("litert:fp32", {"architecture": {"model_type": "gpt2"}}, "not a model of type `gpt2`"),
        ("litert:int8", {"quantization": INT8 | {"bits": 4}}, "round its 4-bit weights a second time"),
        ("litert:int8", {"quantization": INT8 | {"group_size": 32}}, "one scale a row"),
        ("litert:int8", {"quantization": INT8 | {"symmetric": False}}, "are symmetric"),
        ("litert:int8", {"architecture": LLAMA | {"num_key_value_heads": 1}}, "all share one of keys"),
        ("litert:fp32", {"architecture": LLAMA | {"num_key_value_heads": 1, "num_attention_heads": 1}}, ""),
        ("litert:int8", {"quantization": INT8}, ""),
        ("litert:int8", {}, ""),
        ("litert:fp32", {"quantization": INT8 | {"bits": 4, "group_size": 32}}, ""),
    ],
)
def test_what_is_refused(format_: str, changed: dict[str, Any], reason: str) -> None:
    found = toolchain().refusal(Conversion(model(**changed), format_, HERE))
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_big_endian_device_is_refused() -> None:
    assert "little-endian" in toolchain().refusal(Conversion(TEXT, "litert:fp32", device("s390x")))


def test_weights_are_told_to_the_byte() -> None:
    info = toolchain()
    floats = info.footprint(Conversion(TEXT, "litert:fp32", HERE)).weights
    parameters = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 96 + 2 * 64) + 64 + 280 * 64
    assert floats == 4 * parameters
    rows = 2 * (64 + 32 + 32 + 64 + 96 + 96 + 64) + 280
    vectors = 5 * 64
    integers = info.footprint(Conversion(TEXT, "litert:int8", HERE)).weights
    assert integers == parameters - vectors + 12 * rows + 4 * vectors


def test_a_file_of_more_than_2_gib_is_refused() -> None:
    large = LLAMA | {"vocab_size": 128_000, "hidden_size": 4096}
    assert "at most 2 GiB" in toolchain().refusal(Conversion(model(architecture=large), "litert:fp32", HERE))
    assert toolchain().refusal(Conversion(model(architecture=large), "litert:int8", HERE)) == ""


def test_floats_beside_integers_stay_floats() -> None:
    info = toolchain()
    kept = model(quantization=INT8 | {"embeddings": "float"})
    more = info.footprint(Conversion(kept, "litert:int8", HERE)).weights
    all_integers = info.footprint(Conversion(model(quantization=INT8), "litert:int8", HERE)).weights
    assert more - all_integers == 3 * 280 * 64 - 12 * 280
    images = model(task="image_classification", architecture=VIT, quantization=INT8 | {"embeddings": "float"})
    plain = model(task="image_classification", architecture=VIT, quantization=INT8)
    assert info.footprint(Conversion(images, "litert:int8", HERE)) == info.footprint(
        Conversion(plain, "litert:int8", HERE)
    )
