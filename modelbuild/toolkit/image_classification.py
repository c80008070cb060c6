"""The task `image_classification`: rows of pixels, and the models that name what they show. Imports torch.

A row is `{"pixels": ..., "label": 3, "slice": "all"}`. `pixels` is a list of image rows, each a list of
brightnesses from 0 to 1 (height x width), or one such image for each channel (channels x height x width). An
example has one scored row: its logits over the labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.utils import logging

from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import packed_bits, read_dense
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.task import Batch, Examples, Outputs

logging.set_verbosity_error()
logging.disable_progress_bar()


@dataclass(frozen=True)
class Images:
    """One split in memory. pixels: (n, channels, height, width) float32, 0 to 1. labels: (n,) int64."""

    pixels: torch.Tensor
    labels: torch.Tensor
    slices: tuple[str, ...]

    @property
    def lengths(self) -> Sequence[int]:
        """Every image costs one unit."""
        return [1] * len(self.labels)

    @property
    def rows(self) -> Sequence[int]:
        """Every image is one decision."""
        return [1] * len(self.labels)


class ImageClassification:
    """Vision transformers, and any other model that transformers loads for image classification."""

    unit = "images"

    def examples(
        self, dataset: Path, split: str, model: Path | None, *, limit: int = 0, sequence_length: int = 0
    ) -> Images:
        """Read a split. `model` and `sequence_length` mean nothing for images."""
        return read_images(dataset / f"{split}.jsonl", limit=limit)

    def create(self, architecture: Mapping[str, Any], tokenizer: Path | None) -> torch.nn.Module:
        """A new model. Raises ToolError for a key that the architecture does not have."""
        keys = dict(architecture)
        model_type = keys.pop("model_type", None)
        if not isinstance(model_type, str):
            raise ToolError("`architecture` names no `model_type`", hint='for example "vit"')
        try:
            known = set(AutoConfig.for_model(model_type).to_dict())
        except ValueError as error:
            raise ToolError(f"transformers knows no model type `{model_type}`") from error
        unknown = sorted(set(keys) - known - {"num_labels"})
        if unknown:
            raise ToolError(
                f"`{unknown[0]}` is not a key of `{model_type}`",
                hint=f"its keys are {', '.join(f'`{key}`' for key in sorted(known))}",
            )
        config = AutoConfig.for_model(model_type, **keys)
        model: torch.nn.Module = AutoModelForImageClassification.from_config(config, dtype=torch.float32)
        return model

    def load(self, model: Path) -> torch.nn.Module:
        """Read a model tree, weights stored as packed integers included: those are dequantized.

        Raises ToolError when a weight is missing, left over or of another shape: transformers alone would
        fill the gap with random numbers.
        """
        return load_tensors(model, dequantized_tensors(model))

    def save(self, model: torch.nn.Module, directory: Path, tokenizer: Path | None) -> None:
        """Write `config.json` and `model.safetensors`.

        Tensors have the names of the modules, which is what pruning and quantization speak of. transformers'
        own `save_pretrained` would rename those of some architectures to what they were called in 2020.
        """
        directory.mkdir(parents=True, exist_ok=True)
        config: Any = model.config
        config.architectures = [type(model).__name__]
        config.save_pretrained(str(directory))
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

    def batch(self, examples: Examples, indices: Sequence[int]) -> Batch:
        """The images at `indices`."""
        assert isinstance(examples, Images)
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return Batch(
            inputs={"pixel_values": examples.pixels[chosen]},
            scored=None,
            targets=examples.labels[chosen],
            units=len(chosen),
        )

    def forward(self, model: torch.nn.Module, batch: Batch, *, hidden: bool = False) -> Outputs:
        """Run the model. A layer's hidden state is its class token, or the mean over the picture."""
        answer = model(**batch.inputs, output_hidden_states=hidden)
        states = tuple(
            state[:, 0] if state.dim() == 3 else state.mean(dim=(2, 3))
            for state in (answer.hidden_states if hidden else ())
        )
        return Outputs(logits=answer.logits.float(), hidden=states)


def dequantized_tensors(model: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model tree in float32, by their stored names."""
    tensors = read_dense(model, packed_bits(read_config(model)))
    return {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in tensors.items()}


def load_tensors(model: Path, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The model that `config.json` describes, in eval mode, with these tensors by their stored names."""
    keys = read_config(model)
    keys.pop("quantization_config", None)
    config = AutoConfig.for_model(**keys)
    blank = AutoModelForImageClassification.from_config(config)
    loaded, facts = type(blank).from_pretrained(
        None,
        config=config,
        state_dict=dict(tensors),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # so that they are listed, and refused below
        output_loading_info=True,
    )
    if len(tensors) > len(loaded.state_dict()):
        raise ToolError("the model holds tensors that its config.json has no place for")
    check_loaded(facts)
    assert isinstance(loaded, torch.nn.Module)
    return loaded.eval()


def check_loaded(facts: Mapping[str, Any]) -> None:
    """Raise ToolError for a weight that is missing, left over or of another shape. facts: transformers'."""
    for wrong, names in (
        ("lacks", facts["missing_keys"]),
        ("has a leftover", facts["unexpected_keys"]),
        ("has another shape of", facts["mismatched_keys"]),
    ):
        if names:
            first = min(name if isinstance(name, str) else name[0] for name in names)
            raise ToolError(f"the model {wrong} `{first}`: its weights and config.json do not fit")


def read_images(path: Path, *, limit: int = 0) -> Images:
    """The rows of a `.jsonl` file; limit 0 is all. Raises ToolError with the line that is wrong."""
    pixels: list[list[Any]] = []
    labels: list[int] = []
    slices: list[str] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if limit and len(labels) == limit:
                break
            try:
                row = json.loads(line)
                pixels.append(row["pixels"])
                labels.append(row["label"])
                slices.append(row.get("slice", "all"))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ToolError(
                    f"{path.name}:{number}: not an image row: {error!r}",
                    hint='a row is {"pixels": [[0.0, 0.5], [1.0, 0.0]], "label": 3, "slice": "all"}',
                ) from error
    if not labels:
        raise ToolError(f"`{path.name}` holds no image")
    return Images(_image_tensor(pixels, path), torch.tensor(labels, dtype=torch.int64), tuple(slices))


def _image_tensor(pixels: list[list[Any]], path: Path) -> torch.Tensor:
    try:
        tensor = torch.tensor(pixels, dtype=torch.float32)
    except (ValueError, TypeError) as error:
        raise ToolError(f"`{path.name}`: its images differ in shape, or hold no numbers") from error
    if tensor.dim() == 3:
        tensor = tensor.unsqueeze(1)
    if tensor.dim() != 4:
        raise ToolError(
            f"`{path.name}`: `pixels` is neither height x width nor channels x height x width",
            hint="write an image as a list of rows",
        )
    if tensor.min() < 0 or tensor.max() > 1:
        raise ToolError(f"`{path.name}`: brightness goes from 0 to 1, not {tensor.min()} to {tensor.max()}")
    return tensor
