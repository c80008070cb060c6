"""DenseGraph: the plain export of a model, and how its matrices are replaced by something smaller.

The export keeps every matrix under its name in the checkpoint, so a packed weight finds its place by name;
that it stands for the very same numbers is checked before it takes the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import ToolError

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
_LIMIT_BYTES = 2**31 - (1 << 24)
MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Use:
    """One node that reads a matrix. matrix: float32 [outputs, inputs], as a checkpoint stores it.

    data: the node's other input, activations or token ids. gather: whether it looks rows up. shared: whether
    one node looks rows up in the matrix and another multiplies by it: its codes are stored as rows, once.
    """

    node: Any
    name: str
    data: str
    matrix: npt.NDArray[np.float32] = field(repr=False)
    gather: bool
    shared: bool = False

    @property
    def output(self) -> str:
        """What the node computes."""
        return str(self.node.output[0])


class DenseGraph:
    """A loaded export."""

    def __init__(self, directory: Path) -> None:
        self.model: Any = onnx.load_model(directory / MODEL_FILE)
        graph = self.model.graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output}
        self._replaced: dict[int, list[Any]] = {}
        self._added: dict[str, Any] = {}

    def uses(self) -> list[Use]:
        """Every linear layer, and every look-up of token embeddings, in the order of the graph."""
        found = []
        for node in self.model.graph.node:
            if node.op_type == "MatMul":
                data, weight = node.input
                place = self._matrix(weight, turned=True)
            elif node.op_type == "Gather" and node.input[1] == "input_ids":
                weight, data = node.input
                place = self._matrix(weight, turned=False)
            else:
                continue
            if place is not None:
                found.append(Use(node, place[0], data, place[1], gather=node.op_type == "Gather"))
        return found

    def _matrix(self, value: str, *, turned: bool) -> tuple[str, Array] | None:
        """Name and numbers of a stored matrix, or of one that a Transpose turns; turned: once more."""
        producer = self._producers.get(value)
        if producer is not None and producer.op_type == "Transpose":
            value, turned = producer.input[0], not turned
        if value not in self._tensors or len(self._tensors[value].dims) != 2:
            return None
        array = self._array(value)
        return value, np.ascontiguousarray(array.T) if turned else array

    def _array(self, name: str) -> Array:
        array: Array = numpy_helper.to_array(self._tensors[name])
        return array

    def add(self, name: str, array: Array) -> str:
        """A new initializer; the same name twice must be the same numbers. Returns the name."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        if self._added.setdefault(name, tensor) != tensor:
            raise AssertionError(f"two initializers are called {name}")
        return name

    def replace(self, use: Use, nodes: Sequence[Any]) -> None:
        """Let `nodes` compute what `use.node` did."""
        self._replaced[id(use.node)] = list(nodes)

    def proto(self) -> Any:
        """The model with everything replaced, without what nothing reads any more."""
        graph = self.model.graph
        nodes = [new for old in graph.node for new in self._replaced.get(id(old), [old])]
        nodes = _needed(nodes, {value.name for value in graph.output})
        read = {name for node in nodes for name in node.input}
        tensors = [*(t for t in graph.initializer if t.name in read), *self._added.values()]
        new_graph = helper.make_graph(nodes, graph.name, graph.input, graph.output, tensors)
        opsets = {opset.domain: opset.version for opset in self.model.opset_import}
        if any(node.domain == MICROSOFT for node in nodes):
            opsets[MICROSOFT] = 1
        imports = [helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items())]
        return helper.make_model(new_graph, opset_imports=imports, ir_version=self.model.ir_version)


def check_same(use: Use, weight: PackedWeight) -> None:
    """Raise ToolError unless `weight` is the matrix of `use`, number for number."""
    if not np.array_equal(weight.dequantized(), use.matrix):
        raise ToolError(f"the packed weight `{use.name}` is not what the export holds", "this is a bug")


def write(model: Any, directory: Path, limit: int = _LIMIT_BYTES) -> None:
    """Write `model.onnx`; from `limit` bytes on the weights go into `model.onnx.data`."""
    directory.mkdir()
    path = directory / MODEL_FILE
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) >= limit:
        onnx.save_model(model, path, save_as_external_data=True, location=DATA_FILE)
        return
    path.write_bytes(model.SerializeToString(deterministic=True))


def _needed(nodes: Sequence[Any], outputs: set[str]) -> list[Any]:
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
