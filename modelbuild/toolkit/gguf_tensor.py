"""Weights as the blocks that a GGUF file holds: stored, repacked or converted. Needs gguf and numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from modelbuild.toolkit.packed_weights import Array, PackedWeight
from modelbuild.toolkit.request import ToolError

BLOCK = 32
"""Weights in a block of Q4_0, Q4_1 and Q8_0."""

Quantizer = Callable[[npt.NDArray[np.float32], Type], Array]
"""Rounds a float32 matrix [rows, columns] to a type: the bytes of its rows, uint8 [rows, bytes of a row]."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as the file holds it. how: `stored` (same values), `repacked` (same codes and scales),
    `converted` (rounded to the type that was asked for), `computed` (from the configuration).
    """

    name: str
    type: Type
    data: Array
    shape: tuple[int, ...]
    how: str


def quantize_with_gguf(values: npt.NDArray[np.float32], type_: Type) -> Array:
    """The rounding of the package `gguf`: F16, Q4_0, Q4_1, Q8_0, TQ1_0, TQ2_0 and the like."""
    data: Array = gguf.quants.quantize(values, type_)
    return data


def store_packed(
    name: str, weight: PackedWeight, asked: str, *, requantize: bool, quantize: Quantizer = quantize_with_gguf
) -> StoredTensor:
    """Repack codes and scales as Q4_0 or Q8_0 without a second rounding, or say why that is impossible.

    asked: a type, or `auto` for the one that loses nothing. requantize: whether other types are allowed.
    """
    lossless = "Q4_0" if weight.bits <= 4 else "Q8_0"
    reason = _not_repackable(weight)
    if asked == "auto":
        asked = lossless
    if asked != lossless:
        reason = f"{weight.bits}-bit weights are not {asked}"
    if reason:
        if not requantize:
            raise ToolError(
                f"`{name}` cannot be stored as {asked} without rounding it a second time: {reason}",
                "quantize with group_size = 32, symmetric = True, or set allow_requantize = True",
            )
        return store_floats(name, weight.dequantized(), asked, quantize=quantize)
    return _repack(name, weight, lossless)


def store_floats(
    name: str, values: Array, asked: str, *, quantize: Quantizer = quantize_with_gguf
) -> StoredTensor:
    """A tensor with float values. Vectors are always F32. asked: a type, or `auto` for the one it has."""
    shape = values.shape
    kept = Type.F16 if values.dtype == np.float16 else Type.F32
    if values.ndim == 1:
        return StoredTensor(name, Type.F32, values.astype(np.float32), shape, "stored")
    type_ = kept if asked == "auto" else Type[asked]
    if type_ is kept:
        return StoredTensor(name, kept, np.ascontiguousarray(values), shape, "stored")
    block = gguf.GGML_QUANT_SIZES[type_][0]
    if shape[-1] % block:
        raise ToolError(
            f"`{name}` has rows of {shape[-1]} weights, and {type_.name} stores blocks of {block}",
            f"llama.cpp would fall back to another type; choose F16, or widths that are multiples of {block}",
        )
    floats = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(floats).all():
        raise ToolError(f"`{name}` has weights that are not finite numbers")
    if type_ is Type.F32:
        return StoredTensor(name, type_, floats, shape, "stored")
    data = quantize_with_gguf(floats, type_) if type_ is Type.F16 else quantize(floats, type_)
    if type_ is Type.F16 and not np.isfinite(data).all():
        raise ToolError(f"`{name}` has weights too large for float16", "choose F32")
    return StoredTensor(name, type_, data, shape, "converted")


def _repack(name: str, weight: PackedWeight, kind: str) -> StoredTensor:
    rows, columns = weight.codes.shape
    blocks = columns // BLOCK
    scales = np.repeat(weight.scales, weight.group_size // BLOCK, axis=1).astype("<f2")
    head = scales.reshape(rows, blocks, 1).view(np.uint8)
    codes = weight.codes.reshape(rows, blocks, BLOCK)
    if kind == "Q8_0":
        body = codes.view(np.uint8)
    else:
        unsigned = (codes + np.int8(8)).view(np.uint8)
        body = unsigned[..., : BLOCK // 2] | (unsigned[..., BLOCK // 2 :] << np.uint8(4))
    data = np.concatenate([head, body], axis=2).reshape(rows, -1)
    return StoredTensor(name, Type[kind], data, (rows, columns), "repacked")


def _not_repackable(weight: PackedWeight) -> str:
    if weight.zeros is not None:
        return "it is asymmetric"
    if weight.codes.shape[1] % BLOCK or weight.group_size % BLOCK:
        return f"its groups of {weight.group_size} weights are not made of blocks of {BLOCK}"
    with np.errstate(over="ignore"):
        halves = weight.scales.astype(np.float16)
    if not np.array_equal(halves.astype(np.float32), weight.scales):
        return "its scales are not float16 numbers"
    return ""
