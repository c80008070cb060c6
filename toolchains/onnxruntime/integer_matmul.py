"""Matrix products on 8-bit integers, with ranges of activations measured at run time or beforehand.

Weights are stored unsigned, with 128 for zero. With signed ones, ONNX Runtime's kernels for x86-64 processors
without VNNI add pairs of products in 16 bits and cut what does not fit: wrong logits, on some machines only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from graph import DenseGraph, Use
from onnx import TensorProto, helper

from modelbuild.toolkit.packed_weights import PackedWeight

_ZERO = 128
Range = tuple[float, float]


class DynamicProducts:
    """Quantizes each activation when it is there: one range for the whole tensor."""

    def __init__(self, graph: DenseGraph) -> None:
        self._graph = graph
        self._quantized: set[str] = set()

    def replace(self, use: Use, weight: PackedWeight) -> None:
        """weight: 8 bits, symmetric, one scale a row."""
        data, name = use.data, use.name
        nodes: list[Any] = []
        if data not in self._quantized:
            self._quantized.add(data)
            parts = [f"{data}.{part}" for part in ("codes", "scale", "zero")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [data], parts))
        nodes += _columns(self._graph, use, weight)
        scales = self._graph.add(f"{name}.row_scales", weight.scales[:, 0])
        zero = self._graph.add("weight_zero", np.array(_ZERO, np.uint8))
        whole, real, scale = (f"{use.output}.{part}" for part in ("whole", "real", "scale"))
        inputs = [f"{data}.codes", f"{name}.columns", f"{data}.zero", zero]
        nodes += [
            helper.make_node("MatMulInteger", inputs, [whole]),
            helper.make_node("Cast", [whole], [real], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{data}.scale", scales], [scale]),
            helper.make_node("Mul", [real, scale], [use.output]),
        ]
        self._graph.replace(use, nodes)


class StaticProducts:
    """Quantizes activations with ranges that were measured; writes QuantizeLinear and DequantizeLinear pairs.

    ranges: activation -> its least and greatest value over the calibration rows.
    """

    def __init__(self, graph: DenseGraph, ranges: dict[str, Range]) -> None:
        self._graph = graph
        self._ranges = ranges
        self._quantized: set[str] = set()

    def replace(self, use: Use, weight: PackedWeight) -> None:
        """weight: 8 bits, symmetric, one scale a row."""
        data, name = use.data, use.name
        nodes: list[Any] = []
        if data not in self._quantized:
            self._quantized.add(data)
            scale, zero = self._activation(data)
            nodes += [
                helper.make_node("QuantizeLinear", [data, scale, zero], [f"{data}.codes"]),
                helper.make_node("DequantizeLinear", [f"{data}.codes", scale, zero], [f"{data}.real"]),
            ]
        nodes += _columns(self._graph, use, weight)
        stored = [
            f"{name}.columns",
            self._graph.add(f"{name}.row_scales", weight.scales[:, 0]),
            self._graph.add(f"{name}.zeros", np.full(len(weight.codes), _ZERO, np.uint8)),
        ]
        nodes += [
            helper.make_node("DequantizeLinear", stored, [f"{name}.real"], axis=1),
            helper.make_node("MatMul", [f"{data}.real", f"{name}.real"], [use.output]),
        ]
        self._graph.replace(use, nodes)

    def _activation(self, data: str) -> tuple[str, str]:
        low, high = self._ranges[data]
        low, high = min(low, 0.0), max(high, 0.0)  # Zero must have a code: it is what padding is.
        scale = np.float32((high - low) / 255) or np.float32(1)
        zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
        return self._graph.add(f"{data}.scale", np.array(scale, np.float32)), self._graph.add(
            f"{data}.zero", np.array(zero, np.uint8)
        )


def _columns(graph: DenseGraph, use: Use, weight: PackedWeight) -> list[Any]:
    """What makes `<name>.columns`, the unsigned codes [inputs, outputs]: nothing, or a turn of the rows."""
    codes = (weight.codes.astype(np.int16) + _ZERO).astype(np.uint8)
    if not use.shared:
        graph.add(f"{use.name}.columns", codes.T)
        return []
    table = graph.add(f"{use.name}.rows", codes)
    return [helper.make_node("Transpose", [table], [f"{use.name}.columns"], perm=[1, 0])]
