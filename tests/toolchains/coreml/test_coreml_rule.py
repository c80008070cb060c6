from typing import Any

import pytest

from modelbuild.api import Artifact, Conversion, Label, ModelInfo, PlatformInfo, RuntimeToolchainInfo
from modelbuild.platform import CPU, OS
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import HERE, LLAMA, VIT
from toolchains.coreml.rule import CoremlToolchain

TREE = Artifact("model", "tree")


def apple(system: str) -> PlatformInfo:
    constraints = {CPU: Label("platforms", "cpu", "aarch64"), OS: Label("platforms", "os", system)}
    return PlatformInfo(Label("", "p", system), constraints)


def toolchain(**attributes: Any) -> RuntimeToolchainInfo:
    return RuleRunner().analyze(CoremlToolchain, **attributes).get(RuntimeToolchainInfo)


def model(**changed: Any) -> ModelInfo:
    return ModelInfo(**{"weights": TREE, "task": "text_generation", "architecture": LLAMA, **changed})


def test_it_says_that_nothing_here_can_run_it() -> None:
    info = toolchain()
    for system in ("ios", "macos"):
        assert info.device_tool(apple(system)) is None
        assert "only macOS and iOS run Core ML" in info.why_not_run(apple(system))


def test_every_format_is_taken() -> None:
    info = toolchain()
    for format_ in info.formats:
        assert not info.refusal(Conversion(model(), format_, apple("ios")))
        assert not info.refusal(
            Conversion(model(task="image_classification", architecture=VIT), format_, apple("macos"))
        )


@pytest.mark.parametrize(
    ("format_", "platform", "changed", "reason"),
    [
        ("coreml:int8", apple("ios"), {}, "makes coreml:fp16, coreml:fp32"),
        ("coreml:fp16", HERE, {}, "part of Apple's systems"),
        ("coreml:fp16", apple("ios"), {"task": "speech"}, "not one for speech"),
        ("coreml:fp16", apple("ios"), {"architecture": {**LLAMA, "model_type": "gpt2"}}, "type `gpt2`"),
        ("coreml:fp16", apple("ios"), {"architecture": {**LLAMA, "hidden_size": 0}}, "not a positive number"),
    ],
)
def test_what_cannot_be_had_is_refused(
    format_: str, platform: PlatformInfo, changed: dict[str, Any], reason: str
) -> None:
    assert reason in toolchain().refusal(Conversion(model(**changed), format_, platform))


def test_the_target_is_in_the_key_and_the_device_is_not() -> None:
    def action(system: str, **attributes: Any) -> Any:
        conversion = Conversion(model(), "coreml:fp16", apple(system))
        return RuleRunner().convert(toolchain(**attributes), conversion).action

    assert action("ios").params == action("macos").params
    assert not action("ios").platform
    assert action("ios").params != action("ios", minimum_deployment_target="iOS17").params
