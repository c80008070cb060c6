from typing import Any

import pytest

from modelbuild.api import Artifact, Conversion, Label, ModelInfo, PlatformInfo, RuntimeToolchainInfo
from modelbuild.platform import CPU, OS
from modelbuild.runner import Runner
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import HERE, LLAMA, VIT
from toolchains.ncnn.rule import NcnnToolchain

TREE = Artifact("model", "tree")
ROUNDING = {"bits": 4, "group_size": 32, "symmetric": True, "embeddings": "rtn"}


def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(NcnnToolchain).get(RuntimeToolchainInfo)


def model(**changed: Any) -> ModelInfo:
    return ModelInfo(**{"weights": TREE, "task": "text_generation", "architecture": LLAMA, **changed})


def test_every_format_is_taken() -> None:
    info = toolchain()
    for format_ in info.formats:
        assert not info.refusal(Conversion(model(), format_, HERE))
        assert not info.refusal(
            Conversion(model(task="image_classification", architecture=VIT), format_, HERE)
        )
    assert not info.refusal(Conversion(model(quantization={**ROUNDING, "bits": 3}), "ncnn:int4", HERE))
    assert not info.refusal(
        Conversion(model(quantization={**ROUNDING, "bits": 8, "group_size": 0}), "ncnn:int8", HERE)
    )


@pytest.mark.parametrize(
    ("format_", "changed", "reason"),
    [
        ("ncnn:int2", {}, "makes ncnn:fp32, ncnn:fp16"),
        ("ncnn:fp32", {"task": "speech"}, "not one for speech"),
        ("ncnn:fp32", {"architecture": {**LLAMA, "model_type": "gpt2"}}, "a model of type `gpt2`"),
        ("ncnn:fp32", {"architecture": {**LLAMA, "hidden_size": 0}}, "not a positive number"),
        ("ncnn:int4", {"architecture": {**LLAMA, "hidden_size": 48}}, "are 48 wide"),
        ("ncnn:fp32", {"architecture": {**LLAMA, "hidden_act": "gelu_new"}}, "activation is `gelu_new`"),
        ("ncnn:int4", {"quantization": {**ROUNDING, "bits": 8}}, "8-bit weights would be rounded a second"),
        ("ncnn:int8", {"quantization": {**ROUNDING, "symmetric": False}}, "asymmetric"),
        ("ncnn:int8", {"quantization": {**ROUNDING, "group_size": 48}}, "groups of 48 weights"),
    ],
)
def test_what_cannot_be_had_is_refused(format_: str, changed: dict[str, Any], reason: str) -> None:
    assert reason in toolchain().refusal(Conversion(model(**changed), format_, HERE))


def test_formats_share_the_conversion_and_devices_share_everything() -> None:
    drone = PlatformInfo(
        Label("", "p", "drone"),
        {CPU: Label("platforms", "cpu", "aarch64"), OS: Label("platforms", "os", "linux")},
    )
    info, runner = toolchain(), RuleRunner()
    made = [
        runner.convert(info, Conversion(model(), format_, platform), name=f"b{number}").actions
        for number, (format_, platform) in enumerate(
            (("ncnn:int8", HERE), ("ncnn:int4", HERE), ("ncnn:int4", drone))
        )
    ]
    assert [[action.mnemonic for action in actions] for actions in made] == [["NcnnConvert", "NcnnPack"]] * 3
    first = [(actions[0].tool, actions[0].params) for actions in made]
    assert first[0] == first[1] == first[2]
    assert (made[1][1].tool, made[1][1].params) == (made[2][1].tool, made[2][1].params)
    assert not any(action.platform for actions in made for action in actions)


@pytest.mark.parametrize(
    ("cpu", "system", "wheels"),
    [
        ("x86_64", "linux", "x86_64-manylinux_2_28"),
        ("aarch64", "linux", "aarch64-manylinux_2_28"),
        ("armv7", "linux", "armv7-manylinux_2_36"),
        ("aarch64", "android", None),
        ("riscv64", "linux", None),
    ],
)
def test_the_runtime_is_that_of_the_device(cpu: str, system: str, wheels: str | None) -> None:
    constraints = {CPU: Label("platforms", "cpu", cpu), OS: Label("platforms", "os", system)}
    runner = Runner("qemu-user", cpu)
    tool = toolchain().device_tool(PlatformInfo(Label("", "p", cpu), constraints, runner=runner))
    if wheels is None:
        assert tool is None
    else:
        assert tool is not None
        assert tool.lock is not None
        assert tool.lock.platform == wheels
