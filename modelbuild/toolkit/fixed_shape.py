"""Models as exporters of runtimes with static shapes want them: one row in, logits out. Imports torch."""

from __future__ import annotations

from pathlib import Path

import torch

from modelbuild.toolkit.attention_window import check_window
from modelbuild.toolkit.model_tree import read_config

_MASKED = -1e30
"""Added to what attention must not see. Not infinity: some runtimes make NaN of that."""


class FixedText(torch.nn.Module):
    """input_ids int64 (1, length) -> logits (1, length, vocabulary), each position blind to later ones.

    Positions are constants, and the mask is computed of them: as a constant it would take the square of the
    length. transformers' own mask has operators that few exporters follow.
    """

    def __init__(self, model: torch.nn.Module, length: int) -> None:
        """model: a causal language model of transformers. Raises ToolError for a window that is shorter."""
        super().__init__()
        check_window(model.config.to_dict(), length)  # type: ignore[union-attr,operator]
        model.set_attn_implementation("eager")  # type: ignore[operator] # a PreTrainedModel
        self.model = model
        self.positions: torch.Tensor
        self.places: torch.Tensor
        self.register_buffer("positions", torch.arange(length).unsqueeze(0))
        self.register_buffer("places", torch.arange(length, dtype=torch.float32))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """input_ids: (1, length)."""
        later = torch.clamp(self.places[None, None, None, :] - self.places[None, None, :, None], 0.0, 1.0)
        logits: torch.Tensor = self.model(
            input_ids=input_ids,
            attention_mask=later * _MASKED,
            position_ids=self.positions,
            use_cache=False,
        ).logits
        return logits


class FixedImage(torch.nn.Module):
    """pixel_values float32 (1, channels, height, width) -> logits (1, labels)."""

    def __init__(self, model: torch.nn.Module) -> None:
        """model: an image classifier of transformers."""
        super().__init__()
        model.set_attn_implementation("eager")  # type: ignore[operator] # a PreTrainedModel
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values: (1, channels, height, width)."""
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def example_row(model: Path, length: int) -> torch.Tensor:
    """Zeros of the shape and type that a model tree takes. length: of a text in tokens; 0 for images."""
    if length:
        return torch.zeros((1, length), dtype=torch.int64)
    config = read_config(model)
    size = config["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return torch.zeros((1, config["num_channels"], height, width))
