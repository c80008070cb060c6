"""What the toolchain says of models and devices, and the actions it declares. Nothing runs."""

from __future__ import annotations

from typing import Any

import pytest
from modelbuild_numpy.rule import CHeader, NumpyToolchain

from modelbuild.api import (
    AnalysisError,
    Artifact,
    Conversion,
    DeviceBinaryInfo,
    DeviceRunInfo,
    ModelInfo,
    PythonTool,
    Runner,
    RuntimeToolchainInfo,
)
from modelbuild.testing import RuleRunner

TYPE = "//toolchains:runtime"
VIT = {
    "model_type": "vit",
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 10,
    "num_attention_heads": 4,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
}
INT8 = {"scheme": "rtn", "bits": 8, "group_size": 0, "symmetric": True}


def model(**changed: Any) -> ModelInfo:
    facts = {"weights": Artifact("pkg/m/model", "tree"), "task": "image_classification", "architecture": VIT}
    return ModelInfo(**{**facts, **changed})


@pytest.fixture
def runner() -> RuleRunner:
    """Knows `:model` and `:numpy`, which is registered for Linux."""
    made = RuleRunner()
    made.provide(":model", model())
    made.analyze(NumpyToolchain, name="numpy")
    made.analyze("toolchain_type", name="runtime")
    made.analyze(
        "toolchain",
        name="numpy_linux",
        toolchain=":numpy",
        toolchain_type=":runtime",
        target_compatible_with=["@platforms//os:linux"],
    )
    made.register(":numpy_linux")
    return made


def binary(runner: RuleRunner, **attributes: Any) -> Any:
    given = {"model": ":model", "toolchain_type": "//pkg:runtime", **attributes}
    return runner.analyze("device_binary", **given)


def info(runner: RuleRunner) -> RuntimeToolchainInfo:
    return runner.analyze(NumpyToolchain, name="other").get(RuntimeToolchainInfo)


def test_a_binary_for_a_device(runner: RuleRunner) -> None:
    runner.platform("zero", cpu="aarch64", os="linux", ram="256 MB", disk="64 MB")
    target = binary(runner, platform=":zero", format="npz:int8")
    assert target.action.mnemonic == "NumpyConvert"
    assert target.action.params == {"format": "npz:int8"}
    assert target.action.inputs == {"in/model": model().weights}
    assert target.get(DeviceBinaryInfo).runtime == "numpy"


def test_devices_share_the_conversion(runner: RuleRunner) -> None:
    actions = []
    for cpu in ("aarch64", "x86_64"):
        device = runner.platform(cpu, cpu=cpu, os="linux")
        actions.append(runner.convert(info(runner), Conversion(model(), "npz:int8", device)).action)
    assert actions[0] == actions[1]


def test_only_linux_is_for_it(runner: RuleRunner) -> None:
    runner.platform("phone", cpu="aarch64", os="ios")
    with pytest.raises(AnalysisError, match="no toolchain is for `//pkg:phone`"):
        binary(runner, platform=":phone")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"task": "text_generation"}, "the model is for text_generation"),
        ({"architecture": VIT | {"model_type": "llama"}}, "the model is a `llama`"),
        ({"architecture": VIT | {"hidden_act": "relu"}}, "the model has `relu`"),
        ({"quantization": INT8 | {"symmetric": False}}, "zero points"),
    ],
)
def test_what_it_cannot_do_is_refused(runner: RuleRunner, changed: dict[str, Any], reason: str) -> None:
    device = runner.platform("zero", cpu="aarch64", os="linux")
    assert reason in info(runner).refusal(Conversion(model(**changed), "npz:int8", device))
    runner.provide(":model", model(**changed))
    with pytest.raises(AnalysisError, match=reason):
        binary(runner, platform=":zero", format="npz:int8")


def test_floats_take_codes_with_zero_points(runner: RuleRunner) -> None:
    device = runner.platform("zero", cpu="aarch64", os="linux")
    asymmetric = model(quantization=INT8 | {"symmetric": False})
    assert not info(runner).refusal(Conversion(asymmetric, "npz:fp32", device))


def test_a_device_without_room_is_refused(runner: RuleRunner) -> None:
    runner.platform("small", cpu="aarch64", os="linux", disk="60 KB")
    with pytest.raises(AnalysisError, match="as `npz:fp32` it is too large for `//pkg:small`") as caught:
        binary(runner, platform=":small", format="npz:fp32")
    assert "`npz:int8` fits" in (caught.value.hint or "")
    target = binary(runner, platform=":small", name="other")
    assert target.get(DeviceBinaryInfo).format == "npz:int8"


@pytest.mark.parametrize(
    ("cpu", "os", "emulated", "wheels"),
    [
        ("aarch64", "linux", True, "aarch64-manylinux_2_28"),
        ("aarch64", "linux", False, "aarch64-manylinux_2_28"),
        ("armv7", "linux", True, None),
        ("armv8-m", "none", False, None),
    ],
)
def test_the_device_has_numpy_where_there_are_wheels(
    runner: RuleRunner, cpu: str, os: str, emulated: bool, wheels: str | None
) -> None:
    device = runner.platform("d", cpu=cpu, os=os, runner=Runner("qemu-user", cpu) if emulated else None)
    tool = info(runner).device_tool(device)
    assert (tool.lock.platform if tool and tool.lock else None) == wheels


def test_this_machine_has_its_own_numpy(runner: RuleRunner) -> None:
    target = binary(runner, platform="@platforms//host:host")
    made = target.get(DeviceRunInfo)
    tool = made.toolchain.device_tool(made.platform)
    assert isinstance(tool, PythonTool)
    assert tool.lock is not None
    assert tool.lock.platform == ""


def test_a_header_is_made_of_a_binary_for_numpy(runner: RuleRunner) -> None:
    runner.platform("zero", cpu="aarch64", os="linux")
    runner.platform("pico", cpu="armv8-m", os="none", disk="48 KB")
    binary(runner, name="int8", platform=":zero", format="npz:int8")
    target = runner.analyze(CHeader, name="h", binary=":int8", board=":pico", prefix="digits")
    assert target.files[0].basename == "digits.h"
    assert target.action.inputs == {"in/archive": Artifact("pkg/int8/model.npz", "file")}
    binary(runner, name="fp32", platform=":zero", format="npz:fp32")
    with pytest.raises(AnalysisError, match=r"and the board has 48\.0 kB of flash"):
        runner.analyze(CHeader, name="large", binary=":fp32", board=":pico")
    with pytest.raises(AnalysisError, match="`1st` cannot start a name in C"):
        runner.analyze(CHeader, name="first", binary=":int8", prefix="1st")
    runner.provide(":gguf", DeviceBinaryInfo(Artifact("g", "file"), "gguf:Q4_0", "llama.cpp"))
    with pytest.raises(AnalysisError, match=r"is for llama\.cpp"):
        runner.analyze(CHeader, name="other", binary=":gguf")
