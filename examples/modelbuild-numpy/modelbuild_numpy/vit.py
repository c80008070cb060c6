"""The forward pass of a vision transformer (Dosovitskiy et al., 2021), as transformers computes it.

Arrays have the names of its `state_dict()`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from archive import Array
from layout import CODES, EPSILON, HEADS, SCALES

from modelbuild.toolkit.request import ToolError

_KERNEL = "vit.embeddings.patch_embeddings.projection"
_ERF = np.frompyfunc(math.erf, 1, 1)


class VisionTransformer:
    """A model out of an archive. Matrices that are stored as codes become floats only while they are used."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        """Raises ToolError for an archive of something else."""
        if HEADS not in arrays or f"{_KERNEL}.weight" not in arrays:
            raise ToolError("the archive holds no vision transformer")
        self._arrays = arrays
        self._heads = int(arrays[HEADS])
        self._epsilon = float(arrays[EPSILON])

    def logits(self, pixels: Array) -> Array:
        """pixels: float32 (n, channels, height, width). Returns float32 (n, labels).

        Raises ToolError for pictures of another size.
        """
        states = self._embedded(np.asarray(pixels, dtype=np.float32))
        layer = 0
        while f"vit.layers.{layer}.layernorm_before.weight" in self._arrays:
            states = self._layer(f"vit.layers.{layer}", states)
            layer += 1
        return self._linear("classifier", self._normed("vit.layernorm", states)[:, 0])

    def _embedded(self, pixels: Array) -> Array:
        """(n, 1 + patches, hidden): the class token, then the patches row by row."""
        kernel = self._arrays[f"{_KERNEL}.weight"]
        hidden, channels, tall, wide = kernel.shape
        positions = self._arrays["vit.embeddings.position_embeddings"]
        count, found, height, width = pixels.shape
        if found != channels or (height // tall) * (width // wide) + 1 != positions.shape[1]:
            raise ToolError(f"a picture has the shape {pixels.shape[1:]}, for which the model was not made")
        cut = pixels.reshape(count, channels, height // tall, tall, width // wide, wide)
        patches = cut.transpose(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * tall * wide)
        embedded = patches @ kernel.reshape(hidden, -1).T + self._arrays[f"{_KERNEL}.bias"]
        token = np.broadcast_to(self._arrays["vit.embeddings.cls_token"], (count, 1, hidden))
        return np.concatenate((token, embedded), axis=1) + positions

    def _layer(self, name: str, states: Array) -> Array:
        states = states + self._attended(
            f"{name}.attention", self._normed(f"{name}.layernorm_before", states)
        )
        inner = self._linear(f"{name}.mlp.fc1", self._normed(f"{name}.layernorm_after", states))
        return states + self._linear(f"{name}.mlp.fc2", _gelu(inner))

    def _attended(self, name: str, states: Array) -> Array:
        count, tokens, hidden = states.shape
        width = hidden // self._heads
        query, key, value = (
            self._linear(f"{name}.{part}_proj", states)
            .reshape(count, tokens, self._heads, width)
            .transpose(0, 2, 1, 3)
            for part in "qkv"
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(width))
        odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = odds / odds.sum(axis=-1, keepdims=True) @ value
        return self._linear(f"{name}.o_proj", mixed.transpose(0, 2, 1, 3).reshape(count, tokens, hidden))

    def _normed(self, name: str, states: Array) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        return centred / spread * self._arrays[f"{name}.weight"] + self._arrays[f"{name}.bias"]

    def _linear(self, name: str, states: Array) -> Array:
        made = states @ self._matrix(f"{name}.weight").T
        bias = self._arrays.get(f"{name}.bias")
        return made if bias is None else made + bias

    def _matrix(self, name: str) -> Array:
        """float32 [rows, columns]."""
        codes = self._arrays.get(name + CODES)
        if codes is None:
            return self._arrays[name]
        scales = self._arrays[name + SCALES]
        return codes.astype(np.float32) * np.repeat(scales, codes.shape[1] // scales.shape[1], axis=1)


def _gelu(states: Array) -> Array:
    """Exactly x * P(X <= x), X standard normal. NumPy has no erf, and the tanh form is another function."""
    return np.asarray(states * 0.5 * (1 + _ERF(states / math.sqrt(2)).astype(np.float64)), dtype=np.float32)
