"""Vision transformers of other people, and pictures whose brightness goes from 0 to 1."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from modelbuild.checkpoint import checkpoint_bytes
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.request import ToolError
from tests.foreign_model import bring_in

CONFIG = {
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_labels": 5,
    "initializer_range": 0.3,
}


def save(folder: Path, **processor: Any) -> Path:
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(**CONFIG)).save_pretrained(folder)
    usual = {"do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 0.2]}
    (folder / "preprocessor_config.json").write_text(json.dumps(usual | processor))
    return folder


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "processor",
    [
        {},
        {"do_normalize": False},
        {"image_mean": None, "image_std": None},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False},
    ],
)
def test_it_answers_as_behind_its_own_processor(tmp_path: Path, processor: dict[str, Any]) -> None:
    folder = save(tmp_path / "vit", **{k: v for k, v in processor.items() if v is not None})
    keys = {"do_resize": False, **json.loads((folder / "preprocessor_config.json").read_text())}
    if "image_mean" in processor:
        del keys["image_mean"], keys["image_std"]
        (folder / "preprocessor_config.json").write_text(json.dumps(keys))
    theirs = ViTImageProcessorPil(**keys)(list(pictures().to(torch.uint8)), return_tensors="pt")[
        "pixel_values"
    ]
    with torch.inference_mode():
        expected = ViTForImageClassification.from_pretrained(folder).eval()(theirs).logits
        brought = bring_in(folder, tmp_path / "w")
        model = ImageClassification().load(brought.model)
        found = model(pixel_values=pictures().float() / 255).logits
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()
    assert brought.info.task == "image_classification"
    assert brought.info.architecture["num_labels"] == 5
    assert checkpoint_bytes(brought.info) == (brought.model / "model.safetensors").stat().st_size


def test_a_processor_for_other_channels_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "vit", image_mean=[0.5], image_std=[0.5])
    with pytest.raises(ToolError, match="speaks of 1 channels, the model has 3"):
        bring_in(folder, tmp_path / "w")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "vit")
    written = {**CONFIG, "model_type": "vit"}
    bring_in(folder, tmp_path / "w", architecture=written)
    with pytest.raises(ToolError, match="`num_labels` is 5 there and 4 here"):
        bring_in(folder, tmp_path / "v", architecture=written | {"num_labels": 4})
