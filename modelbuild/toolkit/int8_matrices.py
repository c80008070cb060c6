"""The matrices of a model as 8-bit integers with one scale a row, for runtimes that compute with them.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import ToolError

_HIGHEST = 127
_LEAST_SCALE = 2.0**-126


@dataclass(frozen=True)
class Int8Matrix:
    """codes: int8 [rows, columns]; scales: float32 [rows]."""

    codes: torch.Tensor
    scales: torch.Tensor

    def floats(self) -> torch.Tensor:
        """What it stands for, float32 [rows, columns]."""
        return self.codes * self.scales[:, None]


def int8_matrices(model: torch.nn.Module, tree: Path) -> dict[str, Int8Matrix]:
    """Name of a linear layer or embedding of `model` -> its matrix; layers that stay floats are left out.

    tree: where `model` was loaded from. Its packed codes stay as they are, and what it stores as floats
    beside them stays so; only of a model without packed weights every matrix is rounded here, to the nearest.
    Raises ToolError for codes that would have to be rounded again, and for those that belong to no layer.
    """
    bits = packed_bits(read_config(tree))
    packed = split_packed(read_tensors(tree), bits)[0] if bits else {}
    stored = {name: _kept(name, weight) for name, weight in packed.items()}
    layers = {
        name: layer.weight.detach()
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Embedding)
    }
    if not packed:
        return {name: _rounded(weight) for name, weight in layers.items()}
    strays = sorted(set(stored) - {f"{name}.weight" for name in layers})
    if strays:
        raise ToolError(f"the packed weight `{strays[0]}` belongs to no linear layer or embedding")
    found = {name: stored.get(f"{name}.weight") or _same(weight, stored) for name, weight in layers.items()}
    return {name: matrix for name, matrix in found.items() if matrix is not None}


def round_layers(model: torch.nn.Module, matrices: Mapping[str, Int8Matrix]) -> None:
    """Let the named layers of `model` have the numbers that their integers stand for."""
    for name, matrix in matrices.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, torch.nn.Linear | torch.nn.Embedding)
        layer.weight.data = matrix.floats()


def _rounded(weight: torch.Tensor) -> Int8Matrix:
    scales = (weight.abs().amax(dim=1) / _HIGHEST).clamp(min=_LEAST_SCALE)
    return Int8Matrix(torch.round(weight / scales[:, None]).to(torch.int8), scales)


def _kept(name: str, weight: PackedWeight) -> Int8Matrix:
    if weight.bits != 8 or weight.scales.shape[1] != 1 or weight.zeros is not None:
        raise ToolError(f"`{name}` is not symmetric 8-bit with one scale a row; it would be rounded twice")
    return Int8Matrix(
        torch.from_numpy(np.array(weight.codes)), torch.from_numpy(np.array(weight.scales[:, 0]))
    )


def _same(weight: torch.Tensor, stored: Mapping[str, Int8Matrix]) -> Int8Matrix | None:
    """Of an embedding that is stored as floats: the codes of the output matrix that it is tied to."""
    for matrix in stored.values():
        if matrix.codes.shape == weight.shape and torch.equal(matrix.floats(), weight):
            return matrix
    return None
