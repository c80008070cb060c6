"""Sliding windows: layers whose tokens see only the last few before them. Standard library only.

llama.cpp has none for the families that are written here, and exports of fixed length hand transformers a
mask that hides what is to come and nothing else. A window that gets lost on the way gives other answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelbuild.toolkit.request import ToolError

_ALWAYS = ("mistral",)
_SWITCHED = ("qwen2", "qwen3")
"""Model types with a window, and those with one where `use_sliding_window` says so."""
_TOKENS, _FIRST_LAYER = 4096, 28
"""transformers' `sliding_window` and `max_window_layers` where a configuration leaves them out."""


def attention_window(config: Mapping[str, Any]) -> int:
    """Tokens that a token attends to, its own included, in the layers that look back least; 0: all.

    config: `config.json`, or a complete architecture.
    """
    size = config.get("sliding_window", _TOKENS)
    kind = config.get("model_type")
    if not size or kind not in (*_ALWAYS, *_SWITCHED):
        return 0
    if kind in _SWITCHED:
        layers = config.get("layer_types")
        if not config.get("use_sliding_window"):
            return 0
        if layers is None and config.get("num_hidden_layers", 0) <= config.get(
            "max_window_layers", _FIRST_LAYER
        ):
            return 0
        if layers is not None and "sliding_attention" not in layers:
            return 0
    return int(size)


def check_window(config: Mapping[str, Any], length: int) -> None:
    """Raise ToolError when a layer sees less than `length` tokens back."""
    window = attention_window(config)
    if 0 < window < length:
        raise ToolError(
            f"the model has a sliding window of {window} tokens, and this export is of {length}",
            "set `sequence_length` no higher than the window",
        )
