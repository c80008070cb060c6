"""Puts types into an ONNX graph: TensorRT computes in those that the graph states, and chooses none itself.

All is float32 but products of matrices: their operands are cast to float16, or, where one is a weight,
quantized to int8 and dequantized (Q/DQ), which TensorRT turns into a product of integers.
Needs numpy and onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelbuild.toolkit.request import ToolError

Array = npt.NDArray[Any]

_HIGHEST = 127


@dataclass(frozen=True)
class Product:
    """A product of matrices; index: of its node. data: what is multiplied.

    weight: what it is multiplied by, where that is a weight: name and values, [columns, rows] as in ONNX.
    """

    index: int
    data: str
    weight: tuple[str, Array] | None


class TypedGraph:
    """A graph in float32 that gets other types, product by product."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._nodes = list(model.graph.node)
        self._weights = {each.name: each for each in model.graph.initializer}
        self._before: dict[int, list[onnx.NodeProto]] = {}
        self._after: dict[int, list[onnx.NodeProto]] = {}
        self._made: set[str] = set()
        self._turned = {
            node.output[0]: node.input[0]
            for node in self._nodes
            if node.op_type == "Transpose" and node.input[0] in self._weights
        }

    def products(self) -> Iterator[Product]:
        """Products of activations, in the order of the graph; angles of positions are none of them."""
        for index, node in enumerate(self._nodes):
            if node.op_type == "Gemm":
                raise ToolError(f"`{node.name}` is a product that is not known here")
            if node.op_type != "MatMul" or node.input[0] in self._weights:
                continue
            yield Product(index, node.input[0], self._weight(node.input[1]))

    def halve(self, product: Product) -> None:
        """Multiply in float16; the result is float32 again."""
        node = self._nodes[product.index]
        halves = [self._operand(product.index, name) for name in node.input]
        name = node.output[0]
        node.input[:], node.output[0] = halves, f"{name}_half_product"
        back = helper.make_node("Cast", [node.output[0]], [name], f"{name}_single", to=TensorProto.FLOAT)
        self._after.setdefault(product.index, []).append(back)

    def quantize(self, product: Product, codes: Array, scales: Array, reach: float) -> None:
        """Multiply integers. codes: int8 [columns, rows]; scales: float32 [rows]; reach: of activations."""
        assert product.weight is not None
        weight = f"{product.weight[0]}_int8"
        values, parameters = f"{weight}_values", [f"{weight}_scale", f"{weight}_zero"]
        if values not in self._made:
            self._add(weight, codes)
            self._add(parameters[0], scales.astype(np.float32))
            self._add(parameters[1], np.zeros(len(scales), np.int8))
            self._insert(product.index, "DequantizeLinear", [weight, *parameters], values, axis=1)
        self._nodes[product.index].input[:] = [self._rounded(product, reach), values]

    def halve_tables(self) -> None:
        """Store what rows are looked up in as float16; the rows are float32 again."""
        for index, node in enumerate(self._nodes):
            table = self._weights.get(node.input[0]) if node.op_type == "Gather" else None
            if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
                continue
            name = node.output[0]
            node.input[0], node.output[0] = self._half(index, node.input[0]), f"{name}_half_rows"
            back = helper.make_node("Cast", [node.output[0]], [name], f"{name}_single", to=TensorProto.FLOAT)
            self._after.setdefault(index, []).append(back)

    def finish(self) -> onnx.ModelProto:
        """The model, without weights that nothing reads any more. Raises ToolError when it is not valid."""
        nodes = [
            each
            for index, node in enumerate(self._nodes)
            for each in (*self._before.get(index, ()), node, *self._after.get(index, ()))
        ]
        nodes, read = self._live(nodes)
        kept = [self._weights[name] for name in sorted(self._weights) if name in read]
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(kept)
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ToolError(f"the typed graph is not valid: {error}") from error
        return model

    def _live(self, nodes: list[onnx.NodeProto]) -> tuple[list[onnx.NodeProto], set[str]]:
        """The nodes that an output needs, and every name that they read."""
        read = {value.name for value in self._model.graph.output}
        kept = []
        for node in reversed(nodes):
            if read & set(node.output):
                kept.append(node)
                read |= set(node.input)
        return kept[::-1], read

    def _weight(self, name: str) -> tuple[str, Array] | None:
        """A weight, or a tied one that is turned first; its name and its values as they are multiplied."""
        source = self._turned.get(name, name)
        if source not in self._weights:
            return None
        values = numpy_helper.to_array(self._weights[source])
        return source, values.T if name in self._turned else values

    def _operand(self, index: int, name: str) -> str:
        """What stands for `name` in a product in float16; a weight that is turned stays stored once."""
        if name not in self._turned:
            return self._half(index, name)
        turned = f"{name}_half"
        if turned not in self._made:
            half = self._half(index, self._turned[name])
            node = helper.make_node("Transpose", [half], [turned], turned, perm=[1, 0])
            self._before.setdefault(index, []).append(node)
            self._made.add(turned)
        return turned

    def _half(self, index: int, name: str) -> str:
        half = f"{name}_half"
        if half in self._made:
            return half
        if name not in self._weights:
            self._insert(index, "Cast", [name], half, to=TensorProto.FLOAT16)
            return half
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(self._weights[name]).astype(np.float16)
        if not np.isfinite(values).all():
            raise ToolError(f"`{name}` has weights too large for float16")
        self._add(half, values)
        self._made.add(half)
        return half

    def _rounded(self, product: Product, reach: float) -> str:
        """The activations, as multiples of a 127th of `reach`."""
        values = f"{product.data}_rounded"
        if values not in self._made:
            parameters = [f"{values}_scale", f"{values}_zero"]
            self._add(parameters[0], np.float32(reach / _HIGHEST or 1.0))
            self._add(parameters[1], np.int8(0))
            codes = f"{values}_codes"
            self._insert(product.index, "QuantizeLinear", [product.data, *parameters], codes)
            self._insert(product.index, "DequantizeLinear", [codes, *parameters], values)
        return values

    def _insert(self, index: int, kind: str, inputs: list[str], output: str, **attributes: int) -> None:
        """Put a node in front of another; what it makes is there from then on."""
        node = helper.make_node(kind, inputs, [output], output, **attributes)
        self._before.setdefault(index, []).append(node)
        self._made.add(output)

    def _add(self, name: str, values: Any) -> None:
        self._weights[name] = numpy_helper.from_array(np.asarray(values), name)


def round_rows(matrix: Array) -> tuple[Array, Array]:
    """Codes int8 [columns, rows] and scales [rows] of a float matrix [columns, rows], to the nearest."""
    scales = np.abs(matrix).max(0) / np.float32(_HIGHEST)
    scales = np.where(scales == 0, np.float32(1), scales).astype(np.float32)
    return np.clip(np.rint(matrix / scales), -_HIGHEST, _HIGHEST).astype(np.int8), scales


Ranges = Mapping[str, float]
"""Activations by name -> the largest magnitude that calibration saw."""
