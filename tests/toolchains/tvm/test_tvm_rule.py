"""What the TVM toolchain declares, refuses and predicts; nothing is compiled here."""

from __future__ import annotations

from typing import Any

import pytest

from modelbuild.api import (
    Artifact,
    Conversion,
    DefaultInfo,
    DeviceBinaryInfo,
    ModelInfo,
    PlatformInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.errors import AnalysisError
from modelbuild.testing import RuleRunner, RuleTarget
from toolchains.tvm.rule import TvmToolchain

LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "tie_word_embeddings": True,
}
VIT = {
    "model_type": "vit",
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 10,
}
SOURCES = ("machine.cc", "machine.h", "streams.h")
INT4 = {"scheme": "gptq", "bits": 4, "group_size": 32, "symmetric": True, "embeddings": "rtn"}
INT8 = {"scheme": "rtn", "bits": 8, "group_size": 0, "symmetric": True, "embeddings": "rtn"}


def platform(cpu: str = "aarch64", system: str = "linux") -> PlatformInfo:
    return RuleRunner().platform(f"//devices:{cpu}-{system}", cpu=cpu, os=system)


def model(**changed: Any) -> ModelInfo:
    keys: dict[str, Any] = {"task": "text_generation", "architecture": LLAMA}
    return ModelInfo(Artifact("model", "tree"), **(keys | changed))


def toolchain(**attributes: Any) -> RuntimeToolchainInfo:
    runner = RuleRunner()
    sources = tuple(Artifact(f"toolchains/tvm/runtime/{name}", "source") for name in SOURCES)
    runner.provide("//toolchains/tvm:runtime_sources", DefaultInfo(sources))
    return runner.analyze(TvmToolchain, **attributes).get(RuntimeToolchainInfo)


def convert(format_: str, made: ModelInfo, cpu: str = "aarch64", **attributes: Any) -> RuleTarget:
    return RuleRunner().convert(toolchain(**attributes), Conversion(made, format_, platform(cpu)))


def test_platforms_share_the_import_and_nothing_else() -> None:
    first, second = (convert("tvm:fp32", model(), cpu) for cpu in ("aarch64", "x86_64"))
    assert [action.mnemonic for action in first.actions] == ["TvmImport", "TvmCompile"]
    assert first.actions[0].params == second.actions[0].params
    assert first.actions[1].params != second.actions[1].params
    assert first.get(DeviceBinaryInfo).format == "tvm:fp32"
    assert str(first.get(DeviceBinaryInfo).platform) == "//devices:aarch64-linux"


def test_a_runtime_is_built_where_there_are_no_wheels_of_it() -> None:
    one, other = (convert(format_, model(), "riscv64") for format_ in ("tvm:fp32", "tvm:fp32"))
    assert [each.mnemonic for each in one.actions] == ["TvmImport", "TvmCompile", "TvmRuntime", "SymlinkTree"]
    assert one.get(DeviceBinaryInfo).binary.kind == "tree"
    assert set(one.actions[2].inputs) == {f"in/{name}" for name in SOURCES}
    assert one.actions[2].params == other.actions[2].params == {"cpu": "riscv64"}
    assert set(one.actions[3].inputs) == {"model.so", "libtvm_runtime.so"}


def test_both_text_tasks_share_the_import_and_images_have_no_length() -> None:
    text, other = (convert("tvm:fp32", model(task=task)) for task in ("text_generation", "language_modeling"))
    image = convert("tvm:fp32", model(task="image_classification", architecture=VIT))
    assert text.actions[0].params == other.actions[0].params
    assert image.actions[0].params["sequence_length"] == 0


def test_a_processor_is_named_where_one_is_asked_for() -> None:
    generic, cortex = (convert("tvm:fp32", model(), mcpu=each) for each in ({}, {"aarch64": "cortex-a72"}))
    assert generic.actions[1].params["target"]["mcpu"] == "generic"
    assert cortex.actions[1].params["target"]["mcpu"] == "cortex-a72"
    with pytest.raises(AnalysisError, match="`mcpu` names `mips64`"):
        toolchain(mcpu={"mips64": "octeon"})


@pytest.mark.parametrize(
    ("format_", "made", "device", "reason"),
    [
        ("tvm:int4", model(), platform(), "the model has weights in floating point"),
        ("tvm:int8", model(quantization=INT4), platform(), "the model has 4-bit weights"),
        ("tvm:fp32", model(task="translation"), platform(), "not one for translation"),
        ("tvm:fp32", model(architecture={"model_type": "gemma"}), platform(), "type `gemma`"),
        ("tvm:fp32", model(), platform("wasm32"), "not for `wasm32`"),
        ("tvm:fp32", model(), platform(system="ios"), "system is `ios`"),
        ("tvm:fp16", model(), platform(), "this toolchain makes tvm:fp32"),
        ("tvm:fp32", model(architecture={"model_type": "llama"}), platform(), "at most 2 GiB"),
    ],
)
def test_what_cannot_be_made_is_refused(
    format_: str, made: ModelInfo, device: PlatformInfo, reason: str
) -> None:
    assert reason in toolchain().refusal(Conversion(made, format_, device))
    if device.cpu == "aarch64" and device.os == "linux":
        with pytest.raises(AnalysisError, match="cannot be had as"):
            convert(format_, made)


@pytest.mark.parametrize(
    ("format_", "made"),
    [
        ("tvm:fp32", model()),
        ("tvm:fp32", model(quantization=INT4)),
        ("tvm:int4", model(quantization=INT4)),
        ("tvm:int8", model(task="image_classification", architecture=VIT, quantization=INT8)),
    ],
)
def test_what_can_be_made_is_not_refused(format_: str, made: ModelInfo) -> None:
    for cpu in ("x86_64", "aarch64", "armv7", "riscv64"):
        assert not toolchain().refusal(Conversion(made, format_, platform(cpu)))


def test_integers_are_predicted_to_stay_packed() -> None:
    footprint = toolchain().footprint(Conversion(model(quantization=INT4), "tvm:int4", platform()))
    matrices = 2 * (4 * 256 * 256 + 3 * 256 * 256) + 512 * 256
    assert footprint.detail["weights"] == matrices // 2
    assert footprint.detail["scales"] == matrices // 32 * 4
    assert footprint.detail["floats"] == 5 * 256 * 4
    assert footprint.disk == sum(footprint.detail.values())


def test_embeddings_that_were_not_rounded_are_floats() -> None:
    kept = model(quantization=INT4 | {"embeddings": "float"})
    footprint = toolchain().footprint(Conversion(kept, "tvm:int4", platform()))
    assert footprint.detail["floats"] == (5 * 256 + 512 * 256) * 4


def test_zero_points_take_a_byte() -> None:
    one, other = (
        toolchain().footprint(
            Conversion(model(quantization=INT4 | {"symmetric": each}), "tvm:int4", platform())
        )
        for each in (True, False)
    )
    assert other.detail["scales"] * 4 == one.detail["scales"] * 5


def test_each_device_has_its_runtime() -> None:
    tools = {cpu: toolchain().device_tool(platform(cpu)) for cpu in ("x86_64", "aarch64", "armv7", "riscv64")}
    wheels = {cpu: tool.lock.platform for cpu, tool in tools.items() if tool and tool.lock}
    assert wheels == {"x86_64": "", "aarch64": "aarch64-manylinux_2_28"}
    assert all(isinstance(tool, PythonTool) and tool.source.is_file() for tool in tools.values())
    assert toolchain().device_tool(platform(system="android")) is None
