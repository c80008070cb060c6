"""Models whose tokens see only the last few before them, and exporters that give a mask of their own.

Exports of fixed length hand transformers a mask that hides what is to come and nothing else, and transformers
takes it for every layer. A sliding window shorter than the text would be lost on the way. Imports torch.
"""

from __future__ import annotations

from typing import Any

import torch

from modelbuild.toolkit.request import ToolError


def check_window(model: torch.nn.Module, length: int) -> None:
    """Raise ToolError when a layer of a transformers `model` sees less than `length` tokens back."""
    config: Any = model.config
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None)
    if window is None or (layers is not None and "sliding_attention" not in layers):
        return
    if window < length:
        raise ToolError(
            f"the model has a sliding window of {window} tokens, and this export is of {length}",
            "set `sequence_length` no higher than the window",
        )
