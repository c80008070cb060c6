"""What the IREE toolchain declares, refuses and predicts; nothing is compiled here."""

import pytest

from modelbuild.actions.action import Action
from modelbuild.api import Artifact, Conversion, ModelInfo, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import HERE, LLAMA, VIT, device
from toolchains.iree.rule import IreeToolchain

TEXT = ModelInfo(Artifact("model", "tree"), "text_generation", LLAMA)
IMAGES = ModelInfo(Artifact("model", "tree"), "image_classification", VIT)


def toolchain(**attributes: str) -> RuntimeToolchainInfo:
    return RuleRunner().analyze(IreeToolchain, **attributes).get(RuntimeToolchainInfo)


def actions(cpu: str, **attributes: str) -> dict[str, Action]:
    conversion = Conversion(TEXT, "iree:fp32", device(cpu))
    return {each.mnemonic: each for each in RuleRunner().convert(toolchain(**attributes), conversion).actions}


def test_platforms_share_everything_before_code() -> None:
    first, second = actions("x86_64"), actions("aarch64")
    assert list(first) == ["OnnxExport", "IreeImport", "IreeCompile"]
    for mnemonic in ("OnnxExport", "IreeImport"):
        assert first[mnemonic].params == second[mnemonic].params
    assert first["IreeCompile"].params != second["IreeCompile"].params


@pytest.mark.parametrize(
    ("cpu", "attributes", "flags"),
    [
        ("x86_64", {}, ["--iree-llvmcpu-target-cpu=x86-64-v3"]),
        ("x86_64", {"x86_64_cpu": "x86-64-v2"}, ["--iree-llvmcpu-target-cpu=x86-64-v2"]),
        ("aarch64", {"aarch64_cpu": "cortex-a53"}, ["--iree-llvmcpu-target-cpu=cortex-a53"]),
        (
            "riscv64",
            {"riscv64_features": "+m,+a,+f,+d,+c,+v"},
            ["--iree-llvmcpu-target-abi=lp64d", "--iree-llvmcpu-target-cpu-features=+m,+a,+f,+d,+c,+v"],
        ),
    ],
)
def test_the_cpu_is_stated(cpu: str, attributes: dict[str, str], flags: list[str]) -> None:
    triple = f"--iree-llvmcpu-target-triple={cpu}-unknown-unknown-eabi-elf"
    assert actions(cpu, **attributes)["IreeCompile"].params["target"] == [triple, *flags]


def test_a_risc_v_without_vectors_gets_no_peeled_loops() -> None:
    target = actions("riscv64")["IreeCompile"].params["target"]
    assert target[-1] == "--iree-llvmcpu-vector-pproc-strategy=none"


def test_other_cpus_and_tasks_are_refused() -> None:
    info = toolchain()
    assert "compiles for `x86_64`, `aarch64`, `riscv64`, and the platform's CPU is `wasm32`" in info.refusal(
        Conversion(TEXT, "iree:fp32", device("wasm32"))
    )
    speech = ModelInfo(Artifact("model", "tree"), "speech", LLAMA)
    assert "not one for speech" in info.refusal(Conversion(speech, "iree:fp32", HERE))
    assert (
        info.refusal(Conversion(TEXT, "iree:fp32", HERE))
        == info.refusal(Conversion(IMAGES, "iree:fp32", HERE))
        == ""
    )


def test_what_runs_where() -> None:
    info = toolchain()
    here, there = info.device_tool(HERE), info.device_tool(device("aarch64"))
    assert here is not None
    assert here.lock is not None
    assert here.lock.platform == ""
    assert there is not None
    assert there.lock is not None
    assert there.lock.platform == "aarch64-manylinux_2_28"
    assert there.lock.path == here.lock.path
    assert info.device_tool(device("riscv64")) is None
    assert info.device_tool(device("aarch64", "android")) is None


def test_only_matrices_of_classifiers_are_padded() -> None:
    """A tied matrix that grows would be stored twice."""
    for model, padded in ((TEXT, False), (IMAGES, True)):
        conversion = Conversion(model, "iree:fp32", HERE)
        made = {each.mnemonic: each for each in RuleRunner().convert(toolchain(), conversion).actions}
        assert made["IreeCompile"].params["pad_matrices"] is padded


def test_odd_widths_of_a_classifier_take_the_bytes_of_the_next_multiple_of_eight() -> None:
    def weights(inner: int) -> int:
        keys = VIT | {"intermediate_size": inner, "num_hidden_layers": 1}
        model = ModelInfo(IMAGES.weights, IMAGES.task, keys)
        return toolchain().footprint(Conversion(model, "iree:fp32", HERE)).detail["weights"]

    assert weights(57) == weights(64) == weights(56) + 2 * 4 * 8 * VIT["hidden_size"]


def test_packed_weights_take_four_bytes_too() -> None:
    packed = ModelInfo(TEXT.weights, TEXT.task, LLAMA, "int4", quantization={"bits": 4, "group_size": 32})
    info = toolchain()
    assert info.footprint(Conversion(packed, "iree:fp32", HERE)) == info.footprint(
        Conversion(TEXT, "iree:fp32", HERE)
    )
