import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelbuild.toolkit.image_classification import (
    ImageClassification,
    dequantized_tensors,
    load_tensors,
    read_images,
)
from modelbuild.toolkit.request import ToolError

TINY = {
    "model_type": "vit",
    "image_size": 4,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 3,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}
TASK = ImageClassification()


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return TASK.create(TINY, None).eval()


def write_rows(path: Path, *rows: Any) -> Any:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def image(value: Any, side: Any = 4) -> Any:
    return [[value] * side for _ in range(side)]


def test_reads_images_with_one_channel_or_several(tmp_path: Path) -> None:
    grey = read_images(write_rows(tmp_path / "a.jsonl", {"pixels": image(0.5), "label": 2}))
    assert grey.pixels.shape == (1, 1, 4, 4)
    assert grey.slices == ("all",)
    colour = {"pixels": [image(0.0), image(0.5), image(1.0)], "label": 0, "slice": "noisy"}
    read = read_images(write_rows(tmp_path / "b.jsonl", colour, colour))
    assert read.pixels.shape == (2, 3, 4, 4)
    assert read.pixels[1, :, 0, 0].tolist() == [0.0, 0.5, 1.0]
    assert read.slices == ("noisy", "noisy")
    assert list(read.lengths) == list(read.rows) == [1, 1]


def test_limit_reads_the_first_rows_only(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", *({"pixels": image(0.0), "label": n} for n in range(5)))
    assert read_images(path, limit=2).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no image"),
        ([{"pixels": image(0.0)}], "a.jsonl:1: not an image row"),
        ([{"pixels": image(0.0), "label": 0}, {"label": 0}], "a.jsonl:2: not an image row"),
        ([{"pixels": image(0.0), "label": 0}, {"pixels": image(0.0, 3), "label": 0}], "differ in shape"),
        ([{"pixels": [0.0] * 16, "label": 0}], "neither height x width"),
        ([{"pixels": image(16), "label": 0}], "brightness goes from 0 to 1"),
    ],
)
def test_refuses_rows_that_are_no_images(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        read_images(write_rows(tmp_path / "a.jsonl", *rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hiden_size": 8}, "`hiden_size` is not a key of `vit`"),
        ({"model_type": "no-such"}, "no model type `no-such`"),
        ({"model_type": None}, "names no `model_type`"),
    ],
)
def test_create_refuses_what_transformers_would_ignore(change: Any, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        TASK.create(TINY | change, None)


def test_create_depends_on_the_seed_only(model: Any) -> None:
    torch.manual_seed(0)
    again = TASK.create(TINY, None)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_save_then_load_is_the_same_model_and_the_same_bytes(tmp_path: Path, model: Any) -> None:
    TASK.save(model, tmp_path / "a", None)
    loaded = TASK.load(tmp_path / "a")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert not loaded.training
    TASK.save(loaded, tmp_path / "b", None)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_loads_a_tree_with_the_names_of_the_hub(tmp_path: Path, model: Any) -> None:
    model.save_pretrained(str(tmp_path))
    loaded = TASK.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_load_fills_no_gap_with_random_numbers(tmp_path: Path, model: Any) -> None:
    TASK.save(model, tmp_path, None)
    tensors = dequantized_tensors(tmp_path)
    lacking = {name: t for name, t in tensors.items() if name != "vit.layernorm.bias"}
    with pytest.raises(ToolError, match=r"lacks `vit\.layernorm\.bias`"):
        load_tensors(tmp_path, lacking)
    with pytest.raises(ToolError, match=r"another shape of `classifier\.weight`"):
        load_tensors(tmp_path, tensors | {"classifier.weight": torch.zeros(2, 8)})
    with pytest.raises(ToolError, match="no place for"):
        load_tensors(tmp_path, tensors | {"more": torch.zeros(1)})
    # The same weight under its new and its old name: which would be taken?
    twice = tensors | {"vit.encoder.layer.0.output.dense.weight": tensors["vit.layers.0.mlp.fc2.weight"] + 1}
    with pytest.raises(ToolError, match="no place for"):
        load_tensors(tmp_path, twice)


def test_forward_scores_one_row_an_image_and_shows_class_tokens(tmp_path: Path, model: Any) -> None:
    write_rows(tmp_path / "eval.jsonl", *({"pixels": image(n / 4), "label": n} for n in range(3)))
    examples = TASK.examples(tmp_path, "eval", None)
    batch = TASK.batch(examples, [2, 0])
    assert batch.targets.tolist() == [2, 0]
    assert batch.units == 2
    with torch.no_grad():
        outputs = TASK.forward(model, batch, hidden=True)
        alone = TASK.forward(model, TASK.batch(examples, [2]))
    assert outputs.logits.shape == (2, 3)
    assert [h.shape for h in outputs.hidden] == [(2, 8)] * 3
    assert torch.allclose(outputs.logits[:1], alone.logits, atol=1e-6)
    assert alone.hidden == ()
