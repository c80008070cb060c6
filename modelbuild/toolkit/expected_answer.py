"""What a binary of fixed length must answer: whoever converts a model asks the model first. Imports torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modelbuild.toolkit.fixed_shape import example_row
from modelbuild.toolkit.request import ToolError

TOLERANCE = 1e-4
"""The largest difference, as a part of the largest logit, that the order of sums explains."""
ROUNDED_INPUTS = 0.5
"""The same where a runtime also rounds the inputs of matrices to 8 bits: more is another model."""
_HINT = "the converter does not follow this model; another runtime may"


class ExpectedAnswer:
    """A row, always the same, and what transformers answers to it, with its own attention and masks.

    row: int64 (1, length), or float32 (1, channels, height, width). logits: float32 (1, length, vocabulary),
    or (1, labels).
    """

    def __init__(self, model: torch.nn.Module, length: int) -> None:
        """model: a dense one, as it was loaded; converters change it. length: in tokens; 0 for images."""
        config: Any = model.config
        generator = np.random.default_rng(0)
        shape = tuple(example_row(model, length).shape)
        self.row: npt.NDArray[Any] = (
            generator.integers(0, config.vocab_size, shape) if length else generator.random(shape, np.float32)
        )
        with torch.inference_mode():
            self.logits: npt.NDArray[np.float32] = model(torch.from_numpy(self.row)).logits.numpy()

    def check(
        self, found: npt.NDArray[Any], runtime: str, tolerance: float = TOLERANCE, hint: str = _HINT
    ) -> None:
        """Raise ToolError when what `runtime` answers is further away than `tolerance`, or is no number."""
        if found.shape != self.logits.shape:
            raise ToolError(f"{runtime} gives logits of shape {found.shape}, the model {self.logits.shape}")
        difference = float(np.abs(found - self.logits).max() / np.abs(self.logits).max())
        if not difference <= tolerance:
            raise ToolError(
                f"{runtime} and the model differ by {difference:.2g} of the largest logit, "
                f"more than {tolerance:g}",
                hint,
            )
