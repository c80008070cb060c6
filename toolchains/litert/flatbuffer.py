"""Edits of `.tflite` files: names left out, matrices as 8-bit integers. Needs ai-edge-litert and numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from modelbuild.toolkit.request import ToolError

_IDENTIFIER = b"TFL3"
_OP = schema.BuiltinOperator
_READERS = (_OP.FULLY_CONNECTED, _OP.EMBEDDING_LOOKUP)
_ROUNDING = (_OP.QUANTIZE, _OP.DEQUANTIZE)
_MATRIX = 1
"""Which input of a reader is its matrix."""

Int8Matrix = tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]
"""Codes [rows, columns], scales [rows]."""


class LiteModel:
    """One file, unpacked. Raises ToolError for a file of several graphs."""

    def __init__(self, content: bytes) -> None:
        self._model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
        if len(self._model.subgraphs) != 1:
            raise ToolError(f"the converter made {len(self._model.subgraphs)} graphs, and one was expected")
        self._graph: Any = self._model.subgraphs[0]

    def leave_out_names(self) -> None:
        """Names of inner values say which Python module made them, and take a quarter of a small file."""
        outer = {*self._graph.inputs, *self._graph.outputs}
        for index, tensor in enumerate(self._graph.tensors):
            if index not in outer:
                tensor.name = b""

    def store_integers(self, matrices: Sequence[Int8Matrix]) -> None:
        """Let linear layers and embeddings read these matrices, where they read the same numbers as floats.

        A rounding of the floats to their own grid is taken out. The runtime then rounds a linear layer's
        inputs to 8 bits, each row for itself. Raises ToolError when a matrix is not in the file.
        """
        values = [codes * scales[:, None] for codes, scales in matrices]
        makers = {int(each.outputs[0]): each for each in self._graph.operators}
        places: dict[int, int] = {}
        for operator in self._graph.operators:
            if self._kind(operator) not in _READERS:
                continue
            source = int(operator.inputs[_MATRIX])
            while source in makers and self._kind(makers[source]) in _ROUNDING:
                source = int(makers[source].inputs[0])
            floats = self._floats(source)
            same = [i for i, each in enumerate(values) if floats is not None and np.array_equal(each, floats)]
            if same and same[0] not in places:
                self._place(source, *matrices[same[0]])
                places |= dict.fromkeys(same, source)
            if same or source in places.values():
                operator.inputs = np.array(operator.inputs)  # What was unpacked cannot be written to.
                operator.inputs[_MATRIX] = places[same[0]] if same else source
        if len(places) < len(values):
            missing = len(values) - len(places)
            raise ToolError(f"the converter changed {missing} matrices, whose integers cannot be kept")
        self._drop_unused()

    def store_equal_constants_once(self) -> None:
        """Let values with the same bytes share one buffer, as tied matrices do."""
        first: dict[bytes, int] = {}
        for tensor in self._graph.tensors:
            data = self._model.buffers[tensor.buffer].data
            if data is not None and len(data):
                tensor.buffer = first.setdefault(hashlib.sha256(data).digest(), tensor.buffer)
        self._drop_unused()

    def packed(self) -> bytes:
        """The file."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())

    def _kind(self, operator: Any) -> int:
        return int(self._model.operatorCodes[operator.opcodeIndex].builtinCode)

    def _floats(self, index: int) -> npt.NDArray[np.float32] | None:
        """A constant; None for a value that is computed."""
        tensor = self._graph.tensors[index]
        data = self._model.buffers[tensor.buffer].data
        if data is None or tensor.type != schema.TensorType.FLOAT32:
            return None
        return np.asarray(data, dtype=np.uint8).view(np.float32).reshape(tensor.shape)

    def _place(self, index: int, codes: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]) -> None:
        tensor = self._graph.tensors[index]
        quantization = schema.QuantizationParametersT()
        quantization.scale = scales
        quantization.zeroPoint = np.zeros(len(scales), dtype=np.int64)
        quantization.quantizedDimension = 0
        tensor.type, tensor.quantization = schema.TensorType.INT8, quantization
        buffer = schema.BufferT()
        buffer.data = np.ascontiguousarray(codes).view(np.uint8).reshape(-1)
        tensor.buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)

    def _drop_unused(self) -> None:
        """Operators whose result nobody reads, values that no operator touches, buffers of no value."""
        graph, model = self._graph, self._model
        while True:
            read = {*map(int, graph.outputs), *(int(i) for each in graph.operators for i in each.inputs)}
            kept = [each for each in graph.operators if any(int(i) in read for i in each.outputs)]
            if len(kept) == len(graph.operators):
                break
            graph.operators = kept
        touched = {*map(int, graph.inputs), *read, *(int(i) for each in kept for i in each.outputs)} - {-1}
        tensors = {old: new for new, old in enumerate(sorted(touched))}
        graph.tensors = [graph.tensors[old] for old in tensors]
        for owner in (graph, *graph.operators):
            for name in ("inputs", "outputs"):
                moved = [tensors.get(int(i), -1) for i in getattr(owner, name)]
                setattr(owner, name, np.array(moved, dtype=np.int32))
        for signature in model.signatureDefs or []:
            for each in (*signature.inputs, *signature.outputs):
                each.tensorIndex = tensors[each.tensorIndex]
        users = [*graph.tensors, *(model.metadata or [])]
        buffers = {old: new for new, old in enumerate(sorted({0, *(each.buffer for each in users)}))}
        model.buffers = [model.buffers[old] for old in buffers]
        for each in users:
            each.buffer = buffers[each.buffer]
