"""What the toolchain says at analysis."""

from dataclasses import replace
from typing import Any

import pytest

from modelbuild.api import (
    Artifact,
    Context,
    Conversion,
    Label,
    ModelInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import LLAMA, VIT, device
from toolchains.openvino.rule import OpenvinoToolchain

TEXT = ModelInfo(Artifact("m/model", "tree"), "text_generation", LLAMA)
IMAGES = ModelInfo(Artifact("m/model", "tree"), "image_classification", VIT)
INT4 = {"scheme": "gptq", "bits": 4, "group_size": 24, "symmetric": False}


def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(OpenvinoToolchain).get(RuntimeToolchainInfo)


def test_float_models_take_every_format() -> None:
    info = toolchain()
    assert (info.runtime, info.formats[0], len(info.formats)) == ("openvino", "openvino:fp32", 3)
    assert not any(
        info.refusal(Conversion(model, each, device())) for model in (TEXT, IMAGES) for each in info.formats
    )


@pytest.mark.parametrize(
    ("changed", "format_", "where", "reason"),
    [
        ({"task": "speech"}, "openvino:fp32", device(), "not one for speech"),
        ({"format": "exl3"}, "openvino:fp32", device(), "weights stored as `exl3` are not read here"),
        ({"quantization": INT4}, "openvino:int8", device(), "4-bit weights are not `openvino:int8`"),
        (
            {"quantization": INT4 | {"bits": 8}},
            "openvino:int4",
            device(),
            "8-bit weights are not `openvino:int4`",
        ),
        ({}, "openvino:fp32", device("riscv64"), "no OpenVINO for `riscv64` with `linux`"),
        ({}, "openvino:fp32", device("aarch64", "android"), "no OpenVINO for `aarch64` with `android`"),
    ],
)
def test_what_cannot_be_had_is_refused(
    changed: dict[str, Any], format_: str, where: Any, reason: str
) -> None:
    assert reason in toolchain().refusal(Conversion(replace(TEXT, **changed), format_, where))


def test_groups_of_any_size_are_taken() -> None:
    assert not toolchain().refusal(Conversion(replace(TEXT, quantization=INT4), "openvino:int4", device()))


def test_two_actions_the_first_of_which_others_share() -> None:
    ctx = Context(Label("", "pkg", "binary"))
    binary = toolchain().convert(ctx, Conversion(TEXT, "openvino:int4", device(), "cell/", 32))
    export, convert = ctx.actions
    assert dict(export.params) == {"task": "language_model", "sequence_length": 32}
    assert dict(convert.params) == {"variant": "int4"}
    assert set(convert.inputs.values()) == {TEXT.weights, *export.outputs.values()}
    assert binary.binary.path == "pkg/binary/cell/openvino"
    assert convert.platform == ()


def test_floats_are_read_from_the_export_alone() -> None:
    ctx = Context(Label("", "pkg", "binary"))
    toolchain().convert(ctx, Conversion(TEXT, "openvino:fp32", device()))
    export, convert = ctx.actions
    assert set(convert.inputs.values()) == set(export.outputs.values())


def test_devices_with_linux_are_asked() -> None:
    info = toolchain()
    for cpu, wheels in (("x86_64", ""), ("aarch64", "aarch64-manylinux_2_35")):
        tool = info.device_tool(device(cpu))
        assert isinstance(tool, PythonTool)
        assert tool.lock is not None
        assert tool.lock.platform == wheels
        assert tool.source.is_file()
        assert tool.lock.path.is_file()
    assert info.device_tool(device("aarch64", "macos")) is None
