"""Brings in an image classifier that somebody else trained, for brightnesses from 0 to 1."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageClassification

from modelbuild.toolkit.image_classification import ImageClassification, check_loaded
from modelbuild.toolkit.pretrained_config import agreed_config
from modelbuild.toolkit.pretrained_folder import ModelFolder
from modelbuild.toolkit.request import Request, ToolError

_KERNEL = "vit.embeddings.patch_embeddings.projection"
_RESCALED = 255.0


def main(request: Request) -> None:
    """Inputs: `folder` or `files/*`. Outputs: model, a tree. Params: architecture; weights, their shapes."""
    folder, out = ModelFolder.of(request.inputs), request.outputs["model"]
    config = agreed_config(folder, request.params["architecture"])
    stored = folder.tensors()
    model = _load(folder)
    expected = {name: tuple(shape) for name, shape in request.params["weights"].items()}
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if found != expected:
        name = min(set(found.items()) ^ set(expected.items()))[0]
        raise ToolError(f"`{name}` is {found.get(name)}, and by config.json it would be {expected.get(name)}")
    mean, deviation = _brightness(folder.read_json("preprocessor_config.json"), config.keys["num_channels"])
    _fold(model, mean, deviation)
    ImageClassification().save(model, out, None)
    config.write(out, "float32", stored, brightness_folded={"mean": mean, "std": deviation})


def _load(folder: ModelFolder) -> torch.nn.Module:
    """As transformers reads it, old names of tensors included. Raises ToolError for what does not fit."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in folder.files.items():
            (Path(scratch) / name).symlink_to(path.absolute())
        model, facts = AutoModelForImageClassification.from_pretrained(
            scratch,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that they are listed, and refused below
            output_loading_info=True,
        )
    check_loaded(facts)
    assert isinstance(model, torch.nn.Module)
    return model.eval()


def _brightness(processor: Mapping[str, Any], channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, channel by channel, that are taken off a picture from 0 to 1."""
    factor = 1.0
    if processor.get("do_rescale", True):
        factor = float(processor.get("rescale_factor", 1 / _RESCALED))
    scale = factor * _RESCALED  # The processor starts from 0 to 255.
    if not processor.get("do_normalize", True):
        mean, deviation = [0.0] * channels, [1.0] * channels
    else:
        mean = [float(each) for each in processor.get("image_mean", [0.5] * channels)]
        deviation = [float(each) for each in processor.get("image_std", [0.5] * channels)]
    if len(mean) != channels or len(deviation) != channels:
        raise ToolError(f"preprocessor_config.json speaks of {len(mean)} channels, the model has {channels}")
    return [each / scale for each in mean], [each / scale for each in deviation]


def _fold(model: torch.nn.Module, mean: list[float], deviation: list[float]) -> None:
    """Let the first layer do what the processor would have done: W((x - m) / s) = (W / s) x - (W / s) m."""
    layer = model.get_submodule(_KERNEL)
    assert isinstance(layer, torch.nn.Conv2d)
    assert layer.bias is not None
    with torch.no_grad():
        weight = layer.weight.double() / torch.tensor(deviation, dtype=torch.float64)[None, :, None, None]
        shift = (weight * torch.tensor(mean, dtype=torch.float64)[None, :, None, None]).sum((1, 2, 3))
        layer.bias.copy_((layer.bias.double() - shift).float())
        layer.weight.copy_(weight.float())
