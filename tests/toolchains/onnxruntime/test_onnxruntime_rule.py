"""What the toolchain says at analysis: refusals, actions, sizes of architectures."""

from dataclasses import replace
from typing import Any

import pytest

from modelbuild.api import (
    AnalysisError,
    Artifact,
    Context,
    Conversion,
    Label,
    ModelInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import DATA, LLAMA, VIT, device
from toolchains.onnxruntime.rule import OnnxruntimeToolchain

TEXT = ModelInfo(Artifact("m/model", "tree"), "text_generation", LLAMA)
IMAGES = ModelInfo(Artifact("m/model", "tree"), "image_classification", VIT)
INT4 = {"scheme": "gptq", "bits": 4, "group_size": 32, "symmetric": True}
INT8 = INT4 | {"bits": 8, "group_size": 0}


def toolchain(**attributes: Any) -> RuntimeToolchainInfo:
    return RuleRunner().analyze(OnnxruntimeToolchain, **attributes).get(RuntimeToolchainInfo)


def quantized(**grid: Any) -> ModelInfo:
    return replace(TEXT, format="compressed-tensors", quantization=INT4 | grid)


def declared(format_: str, model: ModelInfo = TEXT, **given: Any) -> Context:
    ctx = Context(Label("", "pkg", "binary"))
    toolchain(calibration_rows=9).convert(ctx, Conversion(model, format_, device(), "cell/", 32, **given))
    return ctx


def test_every_format_is_offered_for_float_models() -> None:
    info = toolchain()
    assert info.runtime == "onnxruntime"
    assert info.formats[0] == "onnx:fp32"
    assert len(info.formats) == 5
    assert not any(
        info.refusal(Conversion(model, each, device())) for model in (TEXT, IMAGES) for each in info.formats
    )


@pytest.mark.parametrize(
    ("model", "taken"),
    [
        (quantized(), {"fp32", "int4"}),
        (quantized(bits=3, symmetric=False), {"fp32", "int4"}),
        (quantized(bits=8), {"fp32", "int8"}),
        (quantized(bits=8, symmetric=False, group_size=0), {"fp32", "int8"}),
        (quantized(**INT8), {"fp32", "int8", "int8-dynamic", "int8-static"}),
        (quantized(group_size=24), {"fp32"}),
        (replace(TEXT, format="exl3"), set()),
        (replace(TEXT, task="speech"), set()),
    ],
)
def test_integers_are_taken_where_nothing_rounds_them_again(model: ModelInfo, taken: set[str]) -> None:
    info = toolchain()
    refusals = {
        each.removeprefix("onnx:"): info.refusal(Conversion(model, each, device())) for each in info.formats
    }
    assert {name for name, reason in refusals.items() if not reason} == taken


@pytest.mark.parametrize(
    ("model", "format_", "reason"),
    [
        (quantized(), "onnx:int8", "4-bit weights are not `onnx:int8`, which would round them again"),
        (quantized(bits=8), "onnx:int4", "8-bit weights are not `onnx:int4`"),
        (quantized(bits=8), "onnx:int8-static", "only of 8 bits, symmetric, with one scale a row"),
        (quantized(group_size=24), "onnx:int4", "groups of 24 weights are not made of blocks of 16"),
        (replace(TEXT, format="exl3"), "onnx:fp32", "weights stored as `exl3` are not read here"),
    ],
)
def test_a_refusal_says_why(model: ModelInfo, format_: str, reason: str) -> None:
    assert reason in toolchain().refusal(Conversion(model, format_, device()))


def test_devices() -> None:
    info = toolchain()
    assert "no ONNX Runtime for `riscv64`" in info.refusal(Conversion(TEXT, "onnx:fp32", device("riscv64")))
    assert not info.refusal(Conversion(TEXT, "onnx:fp32", device("wasm32", "emscripten")))
    assert info.device_tool(device("aarch64", "android")) is None
    for cpu, wheels in (("x86_64", ""), ("aarch64", "aarch64-manylinux_2_28")):
        tool = info.device_tool(device(cpu))
        assert isinstance(tool, PythonTool)
        assert tool.lock is not None
        assert tool.lock.platform == wheels
        assert tool.source.is_file()
        assert tool.lock.path.is_file()


def test_formats_share_the_export_and_name_no_device() -> None:
    (alone,) = declared("onnx:fp32").actions
    first, second = declared("onnx:int4").actions
    assert (first.tool, first.params, first.inputs) == (alone.tool, alone.params, alone.inputs)
    assert second.params == {"variant": "int4"}
    assert set(second.inputs.values()) == {TEXT.weights, *first.outputs.values()}
    assert second.platform == ()


def test_calibration_reads_the_declared_data_only() -> None:
    export, calibration, convert = declared("onnx:int8-static", calibration=DATA).actions
    assert dict(calibration.params) == {"rows": 9, "sequence_length": 32}
    assert set(calibration.inputs.values()) == {TEXT.weights, DATA.directory}
    assert set(convert.inputs.values()) == {
        TEXT.weights,
        *export.outputs.values(),
        *calibration.outputs.values(),
    }
    # Formats that measure nothing have nothing of the data in their keys.
    assert all(
        DATA.directory not in a.inputs.values() for a in declared("onnx:int4", calibration=DATA).actions
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "`//pkg:binary`: `onnx:int8-static` measures activations and needs data"),
        (replace(DATA, splits=("train", "eval")), "calibrated on a split `calibration`, which the dataset"),
        (replace(DATA, task="language_modeling"), "data is for `language_modeling`, the model for `text_gen"),
    ],
)
def test_static_ranges_need_a_calibration_split(data: Any, reason: str) -> None:
    with pytest.raises(AnalysisError, match=reason):
        declared("onnx:int8-static", calibration=data)
