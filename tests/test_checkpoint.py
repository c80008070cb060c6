"""Bytes of checkpoints, told and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from modelbuild.architecture import weight_tensors
from modelbuild.artifact import Artifact
from modelbuild.checkpoint import checkpoint_bytes, is_rounded, row_integers_refusal, stored_tensors
from modelbuild.provider import ModelInfo
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from tests.tiny_text import call

TREE = Artifact("pkg/m/model", "tree")
GRID = {"bits": 4, "group_size": 32, "symmetric": True, "embeddings": "rtn"}
TEXT = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VIT = {
    "model_type": "vit",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 10,
}


def held(directory: Path) -> dict[str, list[int]]:
    """Every tensor of the tree and its shape."""
    found: dict[str, list[int]] = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            found |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return found


@pytest.fixture(params=["tied", "untied", "vit"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, ModelInfo]:
    """A tree that a tool wrote, and what analysis knows of it."""
    directory = tmp_path / "model"
    if request.param == "vit":
        images = ImageClassification()
        images.save(images.create(VIT, None), directory, None)
        return directory, ModelInfo(TREE, "image_classification", VIT)
    keys = TEXT | {"tie_word_embeddings": request.param == "tied"}
    text = LanguageModel()
    text.save(text.create(keys, None), directory, None)
    return directory, ModelInfo(TREE, "text_generation", keys)


def written(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def test_a_float_checkpoint(model: tuple[Path, ModelInfo]) -> None:
    directory, info = model

    assert checkpoint_bytes(info) == written(directory)
    assert {t.name: list(t.shape) for file in stored_tensors(info) for t in file} == held(directory)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"embeddings": "float"},
        {"bits": 8, "group_size": 0},
        {"bits": 3, "symmetric": False},
    ],
    ids=str,
)
def test_a_quantized_checkpoint(
    model: tuple[Path, ModelInfo], tmp_path: Path, changed: dict[str, Any]
) -> None:
    directory, info = model
    grid = GRID | changed
    tool = "quantize/image_tool.py" if info.task == "image_classification" else "quantize/tool.py"
    call(tool, {**grid, "observer": "minmax"}, {"model": directory}, {"model": tmp_path / "quantized"})
    quantized = ModelInfo(
        TREE,
        info.task,
        info.architecture,
        dtype=f"int{grid['bits']}",
        format="compressed-tensors",
        quantization=grid,
    )

    assert checkpoint_bytes(quantized) == written(tmp_path / "quantized")
    told = {t.name: list(t.shape) for file in stored_tensors(quantized) for t in file}
    assert told == held(tmp_path / "quantized")
    integers = {t.name for t in weight_tensors(info.architecture) if is_rounded(quantized, t)}
    packed = {name.removesuffix("_packed") for name in told if name.endswith("_packed")}
    # Of a tied pair, integers are stored under the output matrix's name.
    table = {"model.embed_tokens.weight", "lm_head.weight"}
    assert integers - table == packed - table
    assert bool(integers & table) == bool(packed & table)


@pytest.mark.parametrize(
    ("quantization", "reason"),
    [
        ({}, ""),
        (GRID | {"bits": 8, "group_size": 0}, ""),
        (GRID | {"bits": 4, "group_size": 0}, "round its 4-bit weights a second time"),
        (GRID | {"bits": 8, "group_size": 32}, "one scale a row"),
        (GRID | {"bits": 8, "group_size": 0, "symmetric": False}, "symmetric"),
    ],
)
def test_integers_with_one_scale_a_row_are_taken_as_they_are(
    quantization: dict[str, Any], reason: str
) -> None:
    found = row_integers_refusal(ModelInfo(TREE, "text_generation", {}, quantization=quantization))
    assert reason in found
    assert bool(found) == bool(reason)
