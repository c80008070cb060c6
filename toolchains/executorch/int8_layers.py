"""Layers whose weights stay 8-bit integers in an export, one scale a row.

The graphs are those that PyTorch's export quantization would leave, which XNNPACK computes in integers: a
linear layer's inputs are rounded to 8 bits while it runs, each row for itself. Imports torch and executorch.
"""

from __future__ import annotations

import executorch.exir  # noqa: F401 - defines operators
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - likewise

from modelbuild.toolkit.int8_matrices import Int8Matrix

_LOW, _HIGH = -128, 127
_LEAST_SCALE = 2.0**-23
"""Of inputs that are all zero."""


class Int8Linear(torch.nn.Module):
    """A linear layer that computes with integers."""

    def __init__(self, matrix: Int8Matrix, bias: torch.nn.Parameter | None) -> None:
        """matrix: [outputs, inputs]."""
        super().__init__()
        self.codes: torch.Tensor
        self.scales: torch.Tensor
        self.zeros: torch.Tensor
        self.register_buffer("codes", matrix.codes)
        self.register_buffer("scales", matrix.scales)
        self.register_buffer("zeros", torch.zeros(len(matrix.scales), dtype=torch.int64))
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs: (..., inputs)."""
        ops = torch.ops.quantized_decomposed
        scale, zero = ops.choose_qparams.tensor(inputs, _LOW, _HIGH, _LEAST_SCALE, torch.int8)
        rounded = ops.quantize_per_tensor.tensor(inputs, scale, zero, _LOW, _HIGH, torch.int8)
        inputs = ops.dequantize_per_tensor.tensor(rounded, scale, zero, _LOW, _HIGH, torch.int8)
        weight = ops.dequantize_per_channel.default(
            self.codes, self.scales, self.zeros, 0, _LOW, _HIGH, torch.int8
        )
        return torch.nn.functional.linear(inputs, weight, self.bias)


class Int8Embedding(torch.nn.Module):
    """An embedding that looks up first, so that floats are made of the wanted rows only."""

    def __init__(self, matrix: Int8Matrix) -> None:
        super().__init__()
        self.codes: torch.Tensor
        self.scales: torch.Tensor
        self.register_buffer("codes", matrix.codes)
        self.register_buffer("scales", matrix.scales[:, None].contiguous())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """rows: int64."""
        found = torch.nn.functional.embedding(rows, self.codes).to(torch.float32)
        return found * torch.nn.functional.embedding(rows, self.scales)


def int8_layer(layer: torch.nn.Module, matrix: Int8Matrix) -> torch.nn.Module:
    """What keeps these integers in place of a linear layer or an embedding."""
    return Int8Linear(matrix, layer.bias) if isinstance(layer, torch.nn.Linear) else Int8Embedding(matrix)
