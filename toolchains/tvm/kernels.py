"""The operators of layers.py as tensor expressions of TVM: what to compute; schedule.py says in which order.

Packed weights are unpacked where they are used, a tile at a time, so that they stay packed in the artifact
and in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tvm import te

DENSE = "dense"
"""The block that multiplies, for schedule.py."""
WEIGHT = "weight"
"""The block that unpacks."""
_OPAQUE = 8
"""What FuseOps leaves alone: these functions have schedules of their own."""

_HALF = 8


def _unpacked(codes: Any, scales: Any, zeros: Any, bits: int, width: int) -> Callable[[Any, Any], Any]:
    """The weight of input `row` and output `column` as an expression."""
    group = width // int(scales.shape[0])

    def value(row: Any, column: Any) -> Any:
        if bits == 4:
            byte = codes[row // 2, column].astype("int32")
            code = ((byte >> ((row % 2) * 4).astype("int32")) & 15) - _HALF
        else:
            code = codes[row, column].astype("int32")
        if int(zeros.shape[0]):
            code -= zeros[row // group, column].astype("int32")
        return code.astype("float32") * scales[row // group, column]

    return value


def dense(x: Any, weight: Any) -> Any:
    """Float (rows, inputs) times (inputs, outputs)."""
    axis = te.reduce_axis((0, x.shape[1]), "k")
    return te.compute(
        (x.shape[0], weight.shape[1]),
        lambda row, column: te.sum(x[row, axis] * weight[axis, column], axis=axis),
        name=DENSE,
    )


def dense_packed(x: Any, codes: Any, scales: Any, zeros: Any, bits: int) -> Any:
    """The same with a packed weight."""
    value = _unpacked(codes, scales, zeros, bits, int(x.shape[1]))
    return dense(x, te.compute((x.shape[1], codes.shape[1]), value, name=WEIGHT))


def lookup(ids: Any, weight: Any) -> Any:
    """Columns of (inputs, vocabulary) as rows."""
    return te.compute(
        (ids.shape[0], weight.shape[0]), lambda row, column: weight[column, ids[row]], name="lookup"
    )


def lookup_packed(ids: Any, codes: Any, scales: Any, zeros: Any, bits: int, width: int) -> Any:
    """The same with a packed weight."""
    value = _unpacked(codes, scales, zeros, bits, width)
    return te.compute((ids.shape[0], width), lambda row, column: value(column, ids[row]), name="lookup")


def conversions() -> Mapping[str, Callable[[Any, Any], Any]]:
    """What TVM's importer does with each operator of layers.py, by the name it sees."""
    return {
        "dense.default": _conversion(dense, 2),
        "dense_packed.default": _conversion(dense_packed, 4),
        "lookup.default": _conversion(lookup, 2),
        "lookup_packed.default": _conversion(lookup_packed, 4),
    }


def _conversion(kernel: Callable[..., Any], tensors: int) -> Callable[[Any, Any], Any]:
    """tensors: how many of the operator's arguments are tensors; the rest are numbers."""

    def convert(node: Any, importer: Any) -> Any:
        arguments = importer.retrieve_args(node)
        attributes = {"op_pattern": _OPAQUE}
        return importer.block_builder.emit_te(
            lambda *given: kernel(*given, *arguments[tensors:]),
            *arguments[:tensors],
            primfunc_name_hint=kernel.__name__,
            primfunc_attrs=attributes,
        )

    return convert
