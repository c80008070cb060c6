"""Real models through ExecuTorch's exporter and runtime, in the environment of their lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.api import Conversion, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.packed_weights import read_tensors, split_packed
from modelbuild.toolkit.request import ToolError
from tests.locked_tools import LockedTools
from tests.toolchains.conversions import (
    HERE,
    BuiltModel,
    Conversions,
    device,
    largest_error,
    quantized_model,
    random_model,
    top1_agreement,
)
from toolchains.executorch.rule import ExecutorchToolchain

pytestmark = pytest.mark.slow

ROUNDING = 2e-6
ROUNDED_INPUTS = 0.05
"""Of the largest logit: inputs of matrices are rounded to 8 bits."""
AGREEMENT = 0.95
PROGRAM_VARIES = 6_000
"""Bytes."""


@pytest.fixture(scope="module")
def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(ExecutorchToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def conversions(locked: LockedTools, tmp_path_factory: pytest.TempPathFactory) -> Conversions:
    return Conversions(locked, tmp_path_factory.mktemp("executorch"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    folder = tmp_path_factory.mktemp("models")
    made = {family: random_model(family, folder / family) for family in ("llama", "vit")}
    return made | {
        f"{family}-int8": quantized_model(model, folder / f"{family}-int8") for family, model in made.items()
    }


@pytest.mark.parametrize(
    ("name", "format_", "error", "agreement"),
    [
        ("llama", "executorch:fp32", ROUNDING, 1),
        ("vit", "executorch:fp32", ROUNDING, 1),
        ("llama", "executorch:int8", ROUNDED_INPUTS, AGREEMENT),
        ("llama-int8", "executorch:int8", ROUNDED_INPUTS, AGREEMENT),
        ("vit-int8", "executorch:int8", ROUNDED_INPUTS, AGREEMENT),
    ],
)
def test_it_answers_as_torch_does_with_the_size_that_was_told(
    toolchain: RuntimeToolchainInfo,
    conversions: Conversions,
    models: dict[str, BuiltModel],
    name: str,
    format_: str,
    error: float,
    agreement: float,
) -> None:
    model = models[name]
    binary = conversions.make(toolchain, model, format_, HERE, f"{name}-{format_[-4:]}")
    found, expected = conversions.ask(toolchain, model, binary), model.answers()
    assert largest_error(found, expected) < error
    assert top1_agreement(found, expected) >= agreement
    predicted = toolchain.footprint(Conversion(model.info, format_, HERE)).disk
    assert abs(predicted - binary.stat().st_size) < PROGRAM_VARIES


@pytest.mark.parametrize(("name", "format_"), [("llama", "executorch:fp32"), ("vit-int8", "executorch:int8")])
def test_bytes_are_the_same_from_scratch_on_every_platform(
    toolchain: RuntimeToolchainInfo,
    conversions: Conversions,
    models: dict[str, BuiltModel],
    name: str,
    format_: str,
) -> None:
    first = conversions.make(toolchain, models[name], format_, HERE, f"{name}-{format_[-4:]}")
    phone = device("aarch64", "ios")
    second = conversions.make(toolchain, models[name], format_, phone, f"{name}-again")
    assert first.read_bytes() == second.read_bytes()


def test_codes_of_the_checkpoint_are_in_the_file(
    toolchain: RuntimeToolchainInfo, conversions: Conversions, models: dict[str, BuiltModel]
) -> None:
    model = models["llama-int8"]
    content = conversions.make(toolchain, model, "executorch:int8", HERE, "llama-int8-int8").read_bytes()
    packed, _ = split_packed(read_tensors(model.path), 8)
    assert len(packed) == 15
    for name, weight in packed.items():
        assert weight.codes.tobytes() in content, name
        assert weight.scales.tobytes() in content, name


def test_groups_are_not_rounded_again(
    toolchain: RuntimeToolchainInfo, conversions: Conversions, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    grouped = quantized_model(models["vit"], tmp_path / "grouped", group_size=16)
    assert "one scale a row" in toolchain.refusal(Conversion(grouped.info, "executorch:int8", HERE))
    silent = BuiltModel(grouped.path, models["vit"].info)
    with pytest.raises(ToolError, match="would be rounded twice"):
        conversions.make(toolchain, silent, "executorch:int8", HERE, "grouped")


def test_a_file_that_is_no_program_is_refused(
    conversions: Conversions, toolchain: RuntimeToolchainInfo, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    binary = tmp_path / "model.pte"
    binary.write_bytes(b"no program" * 1000)
    with pytest.raises(ToolError, match="ExecuTorch refuses the file"):
        conversions.ask(toolchain, models["vit"], binary)
