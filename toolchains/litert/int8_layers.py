"""Linear layers that a converter leaves alone until their matrices are made integers. Imports torch.

A converter multiplies the scale of a norm into the matrix behind it, and the product is not on the grid of
the matrix any more. Here each matrix is rounded to its own grid inside the graph, which changes no number,
and nothing is multiplied into it. flatbuffer.LiteModel then puts the integers in place of both.
"""

from __future__ import annotations

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - defines operators

from modelbuild.toolkit.int8_matrices import Int8Matrix

_LOW, _HIGH = -128, 127


class GridLinear(torch.nn.Module):
    """A linear layer whose matrix is rounded to the grid that it lies on."""

    def __init__(self, scales: torch.Tensor, layer: torch.nn.Linear) -> None:
        """scales: of the grid, one a row."""
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.scales: torch.Tensor
        self.zeros: torch.Tensor
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.int64))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs: (..., inputs)."""
        ops, grid = torch.ops.quantized_decomposed, (self.scales, self.zeros, 0, _LOW, _HIGH, torch.int8)
        rounded = ops.quantize_per_channel.default(self.weight, *grid)
        weight = ops.dequantize_per_channel.default(rounded, *grid)
        return torch.nn.functional.linear(inputs, weight, self.bias)


def on_grid(layer: torch.nn.Module, matrix: Int8Matrix) -> torch.nn.Module:
    """What keeps a linear layer, which lies on the grid of `matrix`, there; an embedding as it is."""
    return GridLinear(matrix.scales, layer) if isinstance(layer, torch.nn.Linear) else layer
