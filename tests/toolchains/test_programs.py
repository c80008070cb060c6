"""Real models as ExecuTorch's and LiteRT's files, and in their runtimes, each in the environment of its lock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelbuild.api import AnalysisError, Conversion, Rule, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.packed_weights import read_tensors, split_packed
from modelbuild.toolkit.request import ToolError
from tests.toolchains.workshop import (
    HERE,
    LENGTH,
    LLAMA,
    VIT,
    BuiltModel,
    Workshop,
    device,
    largest_error,
    random_model,
    rounded_model,
    top1_agreement,
)
from toolchains.executorch.rule import ExecutorchToolchain
from toolchains.litert.rule import LitertToolchain

pytestmark = pytest.mark.slow

ROUNDING = 2e-6
ROUNDED_INPUTS = 0.05
"""Of the largest logit: inputs of matrices are rounded to 8 bits."""
AGREEMENT = 0.95
PROGRAM_VARIES = 6_000
"""Bytes."""


@dataclass(frozen=True)
class Runtime:
    """A toolchain, and what its runtime is called in errors."""

    info: RuntimeToolchainInfo
    name: str

    def format(self, variant: str) -> str:
        return f"{self.info.runtime}:{variant}"


@pytest.fixture(
    scope="module",
    params=[(ExecutorchToolchain, "ExecuTorch"), (LitertToolchain, "LiteRT")],
    ids=lambda param: param[1],
)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    rule: type[Rule]
    rule, name = request.param
    return Runtime(RuleRunner().analyze(rule).get(RuntimeToolchainInfo), name)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    folder = tmp_path_factory.mktemp("models")
    made = {"llama": random_model(folder / "llama", LLAMA), "vit": random_model(folder / "vit", VIT)}
    biased = random_model(folder / "biased", LLAMA | {"attention_bias": True, "mlp_bias": True})
    return {"biased": biased, **made} | {
        f"{name}-int8": rounded_model(model, folder / f"{name}-int8", bits=8, group_size=0)
        for name, model in made.items()
    }


@pytest.mark.parametrize(
    ("name", "variant"),
    [("llama", "fp32"), ("vit", "fp32"), ("llama", "int8"), ("llama-int8", "int8"), ("vit-int8", "int8")],
)
def test_it_answers_as_torch_does_with_the_size_that_was_told(
    runtime: Runtime, shop: Workshop, models: dict[str, BuiltModel], name: str, variant: str
) -> None:
    model, format_ = models[name], runtime.format(variant)
    binary = shop.make(runtime.info, model, format_)
    found, expected = shop.ask(runtime.info, binary, model.rows()), model.answers()
    assert largest_error(found, expected) < (ROUNDING if variant == "fp32" else ROUNDED_INPUTS)
    assert top1_agreement(found, expected) >= (1 if variant == "fp32" else AGREEMENT)
    predicted = runtime.info.footprint(Conversion(model.info, format_, HERE, sequence_length=LENGTH)).disk
    assert abs(predicted - binary.stat().st_size) < PROGRAM_VARIES


def test_biases_are_counted(runtime: Runtime, shop: Workshop, models: dict[str, BuiltModel]) -> None:
    model, format_ = models["biased"], runtime.format("fp32")
    predicted = runtime.info.footprint(Conversion(model.info, format_, HERE, sequence_length=LENGTH)).disk
    assert abs(predicted - shop.make(runtime.info, model, format_).stat().st_size) < 14 * 150


@pytest.mark.parametrize(
    ("keys", "variant"),
    [
        (VIT | {"num_attention_heads": 1, "hidden_size": 20}, "int8"),
        (VIT | {"qkv_bias": False, "num_hidden_layers": 1}, "fp32"),
        (LLAMA | {"num_attention_heads": 1, "num_key_value_heads": 1, "tie_word_embeddings": False}, "int8"),
    ],
    ids=["one head", "fewer biases", "one head of text"],
)
def test_graphs_of_other_shapes_are_counted(
    runtime: Runtime, shop: Workshop, tmp_path: Path, keys: dict[str, Any], variant: str
) -> None:
    model = random_model(tmp_path / "model", keys)
    asked = Conversion(model.info, runtime.format(variant), HERE, sequence_length=LENGTH)
    made = shop.make(runtime.info, model, asked.format)
    assert runtime.info.footprint(asked).disk == pytest.approx(made.stat().st_size, rel=0.005)


@pytest.mark.parametrize(("name", "variant"), [("llama", "fp32"), ("vit-int8", "int8")])
def test_bytes_are_the_same_from_scratch_on_every_platform(
    runtime: Runtime, shop: Workshop, models: dict[str, BuiltModel], name: str, variant: str
) -> None:
    first = shop.make(runtime.info, models[name], runtime.format(variant))
    phone = device("aarch64", "ios")
    second = shop.fresh().make(runtime.info, models[name], runtime.format(variant), phone)
    assert first.read_bytes() == second.read_bytes()


def test_codes_of_the_checkpoint_are_in_the_file(
    runtime: Runtime, shop: Workshop, models: dict[str, BuiltModel]
) -> None:
    model = models["llama-int8"]
    content = shop.make(runtime.info, model, runtime.format("int8")).read_bytes()
    packed, _ = split_packed(read_tensors(model.path), 8)
    assert len(packed) == 15
    for name, weight in packed.items():
        assert weight.codes.tobytes() in content, name
        assert weight.scales.tobytes() in content, name


def test_groups_are_not_rounded_again(
    runtime: Runtime, shop: Workshop, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    grouped = rounded_model(models["vit"], tmp_path / "grouped", bits=8, group_size=16)
    with pytest.raises(AnalysisError, match="one scale a row"):
        shop.make(runtime.info, grouped, runtime.format("int8"))
    silent = BuiltModel(grouped.path, models["vit"].info)
    with pytest.raises(ToolError, match="would be rounded twice"):
        shop.fresh().make(runtime.info, silent, runtime.format("int8"))


def test_a_file_that_is_no_program_is_refused(
    runtime: Runtime, shop: Workshop, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    binary = tmp_path / "model"
    binary.write_bytes(b"no program" * 1000)
    with pytest.raises(ToolError, match=f"{runtime.name} refuses the file"):
        shop.ask(runtime.info, binary, models["vit"].rows())
