"""The program inside of an `.mlpackage`: operations, constants and weights, as numpy arrays.

Core ML's ML programs are MIL (model intermediate language); the layout of `weight.bin` is that of its blob
storage: 64 bytes of header, then for each array 64 bytes of metadata and its data.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from coremltools.proto import MIL_pb2, Model_pb2

from modelbuild.toolkit.request import ToolError

Array = npt.NDArray[Any]

SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"

_SENTINEL = 0xDEADBEEF
_TYPES: Mapping[int, str] = {
    MIL_pb2.FLOAT16: "<f2",
    MIL_pb2.FLOAT32: "<f4",
    MIL_pb2.INT8: "i1",
    MIL_pb2.UINT8: "u1",
    MIL_pb2.INT16: "<i2",
    MIL_pb2.UINT16: "<u2",
    MIL_pb2.INT32: "<i4",
    MIL_pb2.BOOL: "?",
}


@dataclass(frozen=True)
class Operation:
    """kind: `linear`. inputs: parameter -> names of values. outputs: name -> type and shape."""

    kind: str
    inputs: Mapping[str, tuple[str, ...]]
    outputs: Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]


@dataclass(frozen=True)
class Program:
    """inputs, outputs: name -> shape. constants: name -> value, a string or an array."""

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Any]
    operations: tuple[Operation, ...]


def read_program(package: Path) -> Program:
    """Read the main function. Raises ToolError for what is not an ML program, or uses a type unknown here."""
    specification = Model_pb2.Model()
    specification.ParseFromString((package / SPECIFICATION).read_bytes())
    if specification.WhichOneof("Type") != "mlProgram":
        raise ToolError("the package holds no ML program")
    function = specification.mlProgram.functions["main"]
    weights = (package / WEIGHTS).read_bytes()
    constants: dict[str, Any] = {}
    operations = []
    for operation in function.block_specializations[function.opset].operations:
        if operation.type == "const":
            constants[operation.outputs[0].name] = _value(operation.attributes["val"], weights)
            continue
        inputs: dict[str, tuple[str, ...]] = {}
        for parameter, argument in operation.inputs.items():
            names = []
            for number, binding in enumerate(argument.arguments):
                name = binding.name
                if not name:
                    name = f"{operation.outputs[0].name}.{parameter}.{number}"
                    constants[name] = _value(binding.value, weights)
                names.append(name)
            inputs[parameter] = tuple(names)
        outputs = {each.name: _type(each.type) for each in operation.outputs}
        operations.append(Operation(operation.type, inputs, outputs))
    description = specification.description
    return Program(
        {each.name: tuple(each.type.multiArrayType.shape) for each in description.input},
        {each.name: tuple(each.type.multiArrayType.shape) for each in description.output},
        constants,
        tuple(operations),
    )


def _type(type_: Any) -> tuple[npt.DTypeLike, tuple[int, ...]]:
    tensor = type_.tensorType
    if tensor.dataType not in _TYPES:
        raise ToolError(f"the program has a value of type {MIL_pb2.DataType.Name(tensor.dataType)}")
    return np.dtype(_TYPES[tensor.dataType]), tuple(each.constant.size for each in tensor.dimensions)


def _value(value: Any, weights: bytes) -> Any:
    tensor_type = value.type.tensorType
    if tensor_type.dataType == MIL_pb2.STRING:
        return value.immediateValue.tensor.strings.values[0]
    dtype, shape = _type(value.type)
    if value.WhichOneof("value") == "blobFileValue":
        return _blob(weights, value.blobFileValue.offset, np.dtype(dtype)).reshape(shape)
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if kind == "bytes":
        return np.frombuffer(tensor.bytes.values, dtype).reshape(shape)
    stored = getattr(tensor, kind).values if kind else ()
    return np.array(list(stored), dtype).reshape(shape)


def _blob(weights: bytes, offset: int, dtype: np.dtype[Any]) -> Array:
    sentinel, _, size, start = struct.unpack_from("<IIQQ", weights, offset)
    if sentinel != _SENTINEL:
        raise ToolError("the weights of the package are damaged")
    return np.frombuffer(weights, dtype, size // dtype.itemsize, start)
