"""The rotary embedding in a GGUF file: keys, and for Llama 3.1 a tensor. Needs gguf and numpy.

llama.cpp turns positions by `theta ** (-2i / d)`. By keys it knows two ways of stretching that, `linear` and
`yarn`; the angles of a llama it also divides by the factors in `rope_freqs.weight`, which is how the
stretching of Llama 3.1 (`llama3`) is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from modelbuild.toolkit.gguf_config import rope_parameters
from modelbuild.toolkit.gguf_tensor import StoredTensor


def write_rope(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    """Add the keys `*.rope.*`, but for the width of a head. Raises ToolError as `rope_parameters` does."""
    rope = rope_parameters(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif rope["rope_type"] == "yarn":
        factor = float(rope["factor"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        # llama.cpp multiplies by 0.1 ln(factor) + 1 itself, as transformers does where nothing is stated.
        usual = 0.1 * math.log(factor) + 1.0
        stated = float(rope.get("attention_factor", usual))
        if stated != usual:
            writer.add_rope_scaling_attn_factors(stated / usual)


def rope_tensors(config: Mapping[str, Any], head_dim: int) -> list[StoredTensor]:
    """`rope_freqs.weight` of a model with the embedding of Llama 3.1: what angles are divided by. Else none.

    Wavelengths above `original_max_position_embeddings / low_freq_factor` are stretched by `factor`, those
    below `original_max_position_embeddings / high_freq_factor` stay, and between them it goes over smoothly.
    """
    rope = rope_parameters(config)
    if rope["rope_type"] != "llama3":
        return []
    factor, original = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    angles = float(rope["rope_theta"]) ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    kept = np.clip((original / (2 * math.pi * angles) - low) / (high - low), 0.0, 1.0)
    factors = (1.0 / ((1.0 - kept) / factor + kept)).astype(np.float32)
    type_ = gguf.GGMLQuantizationType.F32
    return [StoredTensor("rope_freqs.weight", type_, factors, factors.shape, "computed")]
