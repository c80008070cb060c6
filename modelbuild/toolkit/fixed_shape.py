"""Models as exporters to fixed shapes want them: one row in, logits out. Imports torch."""

from __future__ import annotations

from typing import Any

import torch

from modelbuild.toolkit.attention_window import check_window

MASKED = -1e30
"""Added to what attention must not see. Not infinity: some runtimes make NaN of that."""


class CausalText(torch.nn.Module):
    """input_ids int64 (1, length) -> logits (1, length, vocabulary), each position blind to later ones.

    Positions and mask are explicit, so that no exporter has to understand how transformers makes its own.
    What exporters follow differs: who derives from this says what the mask is made of.
    """

    def __init__(self, model: torch.nn.Module, length: int) -> None:
        """model: a causal language model of transformers. Raises ToolError for a window that is shorter."""
        super().__init__()
        check_window(model.config.to_dict(), length)  # type: ignore[union-attr,operator]
        self.model = model
        self.positions: torch.Tensor
        self.register_buffer("positions", torch.arange(length).unsqueeze(0))

    def causal_mask(self) -> torch.Tensor:
        """(1, 1, length, length): what is added to the score that a position, the row, gives to another."""
        raise NotImplementedError

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """input_ids: (1, length)."""
        logits: torch.Tensor = self.model(
            input_ids=input_ids,
            attention_mask=self.causal_mask(),
            position_ids=self.positions,
            use_cache=False,
        ).logits
        return logits


class FixedText(CausalText):
    """The mask is computed of constants: as a constant itself it would take the square of the length."""

    def __init__(self, model: torch.nn.Module, length: int) -> None:
        """model, length: as of CausalText."""
        super().__init__(model, length)
        self.places: torch.Tensor
        self.register_buffer("places", torch.arange(length, dtype=torch.float32))

    def causal_mask(self) -> torch.Tensor:
        """float32 (1, 1, length, length)."""
        later = torch.clamp(self.places[None, None, None, :] - self.places[None, None, :, None], 0.0, 1.0)
        return later * MASKED


class FixedImage(torch.nn.Module):
    """pixel_values float32 (1, channels, height, width) -> logits (1, labels)."""

    def __init__(self, model: torch.nn.Module) -> None:
        """model: an image classifier of transformers."""
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values: (1, channels, height, width)."""
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def example_row(model: torch.nn.Module, length: int) -> torch.Tensor:
    """Zeros of the shape and type that a model takes. length: of a text in tokens; 0 for images."""
    if length:
        return torch.zeros((1, length), dtype=torch.int64)
    config: Any = model.config
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.zeros((1, config.num_channels, height, width))
