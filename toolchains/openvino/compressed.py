"""Matrices that stay integers in an OpenVINO model, and are scaled where they are used.

A matrix becomes Constant (integers) -> Convert -> [Subtract] -> Multiply -> Reshape, the pattern that the
plugins of OpenVINO keep as it is and compute with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from modelbuild.toolkit.packed_weights import PackedWeight

_STORED = {8: ov.Type.i8, 4: ov.Type.i4}


@dataclass(frozen=True)
class Use:
    """An operation that reads a constant matrix. name: the matrix's, as in the checkpoint.

    matrix: float32 [outputs, inputs]. gather: whether the operation looks rows up.
    """

    operation: Any
    name: str
    matrix: npt.NDArray[np.float32] = field(repr=False)
    gather: bool


def uses(model: Any) -> Iterator[Use]:
    """Every linear layer, and every look-up of rows, in the order of the model."""
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind not in ("MatMul", "Gather"):
            continue
        source = operation.input_value(0 if kind == "Gather" else 1).get_node()
        turned = kind == "MatMul"
        if source.get_type_name() == "Transpose":
            source, turned = source.input_value(0).get_node(), not turned
        constant = source.get_type_name() == "Constant" and source.get_element_type() == ov.Type.f32
        if constant and len(source.get_output_shape(0)) == 2:
            matrix = source.data.T if turned else source.data
            yield Use(operation, source.friendly_name, np.array(matrix, order="C"), kind == "Gather")


def replace(use: Use, name: str, weight: PackedWeight, made: dict[str, Any]) -> None:
    """Let `use` read integers. made: what was made before, by name: a tied matrix is stored once."""
    if name not in made:
        made[name] = _integers(name, weight)
    old = use.operation
    if use.gather:
        old.input(0).replace_source_output(made[name].output(0))
        return
    new = ops.matmul(old.input_value(0), made[name], transpose_a=False, transpose_b=True)
    names = old.output(0).get_names()
    old.output(0).replace(new.output(0))
    new.output(0).get_tensor().set_names(names)


def _integers(name: str, weight: PackedWeight) -> Any:
    rows, columns = weight.codes.shape
    groups = weight.scales.shape[1]
    shape = [rows, columns] if groups == 1 else [rows, groups, columns // groups]
    scale_shape = [rows, 1] if groups == 1 else [rows, groups, 1]
    bits = 8 if weight.bits == 8 else 4
    codes = _constant(weight.codes.reshape(shape), _STORED[bits], f"{name}.codes")
    value = ops.convert(codes, "f32", name=f"{name}.real")
    if weight.zeros is not None:
        zeros = _constant(weight.zeros.reshape(scale_shape), _STORED[bits], f"{name}.zeros")
        value = ops.subtract(value, ops.convert(zeros, "f32", name=f"{name}.zero"), name=f"{name}.shifted")
    scales = ops.constant(weight.scales.reshape(scale_shape).astype(np.float32), name=f"{name}.scales")
    value = ops.multiply(value, scales, name=f"{name}.scaled")
    if groups > 1:
        target = ops.constant(np.array([rows, columns], np.int64), name=f"{name}.shape")
        value = ops.reshape(value, target, special_zero=False, name=f"{name}.matrix")
    return value


def _constant(codes: npt.NDArray[np.int8], kind: Any, name: str) -> Any:
    if kind == ov.Type.i8:
        return ops.constant(np.ascontiguousarray(codes, np.int8), name=name)
    flat = (codes.reshape(-1).view(np.uint8) & np.uint8(15)).astype(np.uint8)
    flat = np.pad(flat, (0, flat.size % 2))
    packed = flat[0::2] | (flat[1::2] << np.uint8(4))
    # The tensor owns its memory: one around an array would read what lies there when the array is gone.
    tensor = ov.Tensor(kind, ov.Shape(list(codes.shape)))
    tensor.data.view(np.uint8)[:] = packed
    return ops.constant(tensor, name=name)
