import os
import re
from pathlib import Path
from typing import Any

import pytest

from modelbuild.api import (
    Artifact,
    Context,
    Conversion,
    DatasetInfo,
    Label,
    ModelInfo,
    PlatformInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.errors import ModelbuildError
from modelbuild.platform import CPU, OS
from modelbuild.runner import LOCAL, Runner
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import LLAMA
from toolchains.tensorrt import rule
from toolchains.tensorrt.rule import TensorrtToolchain

TREE = Artifact("model", "tree")
ROUNDING = {"bits": 4, "group_size": 32, "symmetric": True, "embeddings": "rtn"}

DATA = DatasetInfo(Artifact("pkg/d/dataset", "tree"), ("calibration",), "text_generation")


def platform(cpu: str, runner: Runner | None = LOCAL) -> PlatformInfo:
    constraints = {CPU: Label("platforms", "cpu", cpu), OS: Label("platforms", "os", "linux")}
    return PlatformInfo(Label("", "p", cpu), constraints, runner=runner)


HERE = platform({"arm64": "aarch64"}.get(os.uname().machine, os.uname().machine))
ELSEWHERE = platform("riscv64")


def toolchain(**attributes: Any) -> RuntimeToolchainInfo:
    attributes = {"gpu_architecture": "sm_87", **attributes}
    return RuleRunner().analyze(TensorrtToolchain, **attributes).get(RuntimeToolchainInfo)


def model(**changed: Any) -> ModelInfo:
    return ModelInfo(**{"weights": TREE, "task": "text_generation", "architecture": LLAMA, **changed})


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with one GPU in it, as NVIDIA's driver has."""
    (tmp_path / "gpus/0000:01:00.0").mkdir(parents=True)
    monkeypatch.setattr(rule, "GPUS", str(tmp_path / "gpus"))


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "GPUS", str(tmp_path / "gpus"))


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_reason_is_told() -> None:
    info = toolchain()
    for format_ in info.formats:
        assert "the machine that builds has none" in info.refusal(Conversion(model(), format_, HERE))
    assert "the machine that builds has none" in info.why_not_run(HERE)
    assert info.device_tool(HERE) is None
    with pytest.raises(ModelbuildError, match="the machine that builds has none"):
        RuleRunner().convert(info, Conversion(model(), "tensorrt:fp16", HERE))


def test_a_gpu_that_appears_is_noticed() -> None:
    context = Context(Label("", "pkg", "tensorrt"))
    TensorrtToolchain(name="tensorrt", gpu_architecture="sm_87").analyze(context)
    assert context.listings == ["/proc/driver/nvidia/gpus"]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("format_", "changed", "where", "reason"),
    [
        ("tensorrt:int4", {}, HERE, "makes tensorrt:fp16, tensorrt:int8"),
        ("tensorrt:fp16", {"task": "speech"}, HERE, "not one for speech"),
        ("tensorrt:fp16", {"architecture": {**LLAMA, "hidden_size": 0}}, HERE, "not a positive number"),
        ("tensorrt:fp16", {}, ELSEWHERE, "an engine for riscv64 is built on one"),
        ("tensorrt:int8", {"quantization": ROUNDING}, HERE, "a scale for each 32"),
        ("tensorrt:int8", {"quantization": {**ROUNDING, "symmetric": False}}, HERE, "asymmetric"),
    ],
)
def test_what_cannot_be_had_is_refused(
    format_: str, changed: dict[str, Any], where: PlatformInfo, reason: str
) -> None:
    assert reason in toolchain().refusal(Conversion(model(**changed), format_, where))


@pytest.mark.usefixtures("gpu")
def test_the_engine_is_of_one_gpu_and_one_tensorrt_and_the_graph_is_of_none() -> None:
    def actions(**attributes: Any) -> Any:
        conversion = Conversion(model(), "tensorrt:int8", HERE, calibration=DATA)
        return RuleRunner().convert(toolchain(**attributes), conversion)

    made = actions()
    mnemonics = [action.mnemonic for action in made.actions]
    assert mnemonics == ["OnnxExport", "Calibration", "TensorRtTypes", "TensorRtBuild"]
    build = made.named("TensorRtBuild")
    assert build.params == {"gpu_architecture": "sm_87", "tensorrt": rule.VERSION}
    assert (build.resources.gpu, build.determinism) == (1, "none")
    other = actions(gpu_architecture="sm_90")
    assert other.named("TensorRtBuild").params != build.params
    assert [each.params for each in other.actions[:-1]] == [each.params for each in made.actions[:-1]]


@pytest.mark.usefixtures("gpu")
def test_int8_needs_calibration() -> None:
    with pytest.raises(ModelbuildError, match="measures activations and needs data"):
        RuleRunner().convert(toolchain(), Conversion(model(), "tensorrt:int8", HERE))


@pytest.mark.usefixtures("gpu")
def test_engines_run_here_or_nowhere() -> None:
    tool = toolchain().device_tool(HERE)
    assert isinstance(tool, PythonTool)
    assert toolchain().device_tool(platform(HERE.cpu, Runner("ssh", HERE.cpu, address="a@b"))) is None


def test_the_lock_pins_the_version_that_is_in_the_key() -> None:
    lock = (Path(rule.__file__).parent / "requirements.lock").read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", lock, re.MULTILINE))
    assert pins["tensorrt"] == pins["tensorrt-cu13-libs"] == rule.VERSION
    assert {"cuda-bindings", "nvidia-cuda-runtime", "numpy"} <= set(pins)


@pytest.mark.parametrize("wrong", ["87", "sm_8", "ampere"])
def test_an_architecture_has_a_name(wrong: str) -> None:
    with pytest.raises(ModelbuildError, match="gpu_architecture"):
        toolchain(gpu_architecture=wrong)
