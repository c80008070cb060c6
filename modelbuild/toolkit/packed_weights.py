"""Packed integer weights of compressed-tensors and of AutoGPTQ. Needs numpy and safetensors.

compressed-tensors (`pack-quantized`): a quantized `x.weight` [rows, columns] is stored as `x.weight_packed`
(int32; the codes of a row, offset by 2^(bits-1), as one little-endian stream of bits), `x.weight_scale`
[rows, groups] and `x.weight_shape`; asymmetric ones also have `x.weight_zero_point`, packed along the rows.
The weight is (code - zero) * scale. An embedding may be stored both as floats and, in
`embeddings.safetensors`, packed.

AutoGPTQ (`gptq`): `x.qweight` (int32 [columns * bits / 32, rows]; unsigned codes, packed down the columns),
`x.scales` [groups, rows], `x.qzeros` (int32 [groups, rows * bits / 32]; one less than the zero point) and
`x.g_idx`, the group of each column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from modelbuild.toolkit.model_tree import weight_files
from modelbuild.toolkit.request import ToolError

Array = npt.NDArray[np.generic]

GPTQ = "gptq"
"""How `config.json` names AutoGPTQ's method and its checkpoint format."""

_DTYPES: Mapping[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


@dataclass(frozen=True)
class PackedWeight:
    """One quantized matrix. codes: int8 [rows, columns]; scales: float32 [rows, groups], a group is
    columns / groups neighbours in a row; zeros: int8 [rows, groups], or None when symmetric.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    zeros: npt.NDArray[np.int8] | None
    bits: int

    @property
    def group_size(self) -> int:
        """Weights that share a scale."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    def rows(self, order: npt.NDArray[np.intp]) -> PackedWeight:
        """The same weight with its rows in another order."""
        zeros = None if self.zeros is None else self.zeros[order]
        return PackedWeight(self.codes[order], self.scales[order], zeros, self.bits)

    def dequantized(self) -> npt.NDArray[np.float32]:
        """The weights in float32, [rows, columns]."""
        codes = self.codes.astype(np.float32)
        if self.zeros is not None:
            codes -= np.repeat(self.zeros, self.group_size, axis=1)
        return codes * np.repeat(self.scales, self.group_size, axis=1)


def pack(codes: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.int32]:
    """Pack signed codes [rows, columns] into int32 [rows, ceil(columns * bits / 32)]."""
    rows = codes.shape[0]
    unsigned = (codes.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    stream = np.unpackbits(unsigned[..., None], axis=2, count=bits, bitorder="little").reshape(rows, -1)
    stream = np.pad(stream, ((0, 0), (0, -stream.shape[1] % 32)))
    return np.packbits(stream, axis=1, bitorder="little").view("<i4")


def unpack(packed: npt.NDArray[np.int32], bits: int, columns: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack`."""
    rows = packed.shape[0]
    stream = np.unpackbits(np.ascontiguousarray(packed).view(np.uint8), axis=1, bitorder="little")
    values = stream[:, : columns * bits].reshape(rows, columns, bits)
    unsigned = np.packbits(values, axis=2, bitorder="little")[..., 0]
    return (unsigned.astype(np.int16) - (1 << (bits - 1))).astype(np.int8)


def read_tensors(model: Path) -> dict[str, Array]:
    """Every tensor of a model tree in its stored type; bfloat16, which numpy lacks, becomes float32."""
    tensors: dict[str, Array] = {}
    for path in weight_files(model):
        try:
            entries = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        except safetensors.SafetensorError as error:
            raise ToolError(f"`{path.name}` is not a safetensors file: {error}") from error
        for name, entry in entries:
            dtype = entry["dtype"]
            if dtype not in _DTYPES:
                raise ToolError(f"tensor `{name}` has type {dtype}, which is not supported here")
            array: Array = np.frombuffer(entry["data"], _DTYPES[dtype]).reshape(entry["shape"])
            if dtype == "BF16":
                array = (array.astype(np.uint32) << 16).view(np.float32)
            tensors[name] = array
    return tensors


def packed_bits(config: Mapping[str, Any]) -> int:
    """How wide the packed weights are that a model's `config.json` speaks of; 0 when it speaks of none."""
    quantization = config.get("quantization_config") or {}
    if quantization.get("quant_method") == GPTQ:
        if quantization.get("checkpoint_format", GPTQ) != GPTQ or quantization.get("dynamic"):
            raise ToolError("of GPTQ's checkpoint formats, only `gptq` with one width is supported")
        return int(quantization["bits"])
    groups = quantization.get("config_groups") or {}
    bits = {group["weights"]["num_bits"] for group in groups.values()}
    if len(bits) > 1:
        raise ToolError("weights of several widths in one model are not supported")
    return int(bits.pop()) if bits else 0


def split_packed(tensors: Mapping[str, Array], bits: int) -> tuple[dict[str, PackedWeight], dict[str, Array]]:
    """Separate packed weights (by the name of the weight, `x.weight`) from the tensors stored as they are."""
    packed: dict[str, PackedWeight] = {}
    plain = dict(tensors)
    for key in [name for name in tensors if name.endswith(".qweight")]:
        name = key.removesuffix(".qweight")
        packed[f"{name}.weight"] = _take_gptq(name, plain, bits)
    for key in [name for name in tensors if name.endswith("_packed")]:
        name = key.removesuffix("_packed")
        words = plain.pop(key)
        try:
            scales = plain.pop(f"{name}_scale").astype(np.float32)
            rows, columns = (int(n) for n in plain.pop(f"{name}_shape"))
        except KeyError as error:
            raise ToolError(f"the packed weight `{name}` lacks {error}") from error
        zeros = plain.pop(f"{name}_zero_point", None)
        if zeros is not None:
            zeros = unpack(np.ascontiguousarray(zeros.T).astype(np.int32), bits, rows).T
        codes = unpack(words.astype(np.int32, copy=False), bits, columns)
        packed[name] = PackedWeight(codes, scales.reshape(rows, -1), zeros, bits)
        floats = plain.pop(name, None)
        if floats is not None and not np.array_equal(floats, packed[name].dequantized()):
            raise ToolError(f"`{name}` is stored twice, packed and as floats, and they differ")
    return packed, plain


def _take_gptq(name: str, plain: dict[str, Array], bits: int) -> PackedWeight:
    """Move a layer of AutoGPTQ's format out of `plain`."""
    if bits not in (2, 4, 8):
        raise ToolError(f"the GPTQ checkpoint has {bits}-bit weights, which are not supported here")
    try:
        words, zero_words, scales, order = (
            plain.pop(f"{name}.{part}") for part in ("qweight", "qzeros", "scales", "g_idx")
        )
    except KeyError as error:
        raise ToolError(f"the packed weight `{name}` lacks {error}") from error
    columns, (groups, rows) = len(order), scales.shape
    if columns % groups or not np.array_equal(order, np.arange(columns) // (columns // groups)):
        raise ToolError(
            f"the columns of `{name}` are not in their own order",
            "quantize without act-order: no other format here can hold such groups",
        )
    codes = unpack(np.ascontiguousarray(words.T, dtype="<i4"), bits, columns)
    ones = np.uint32(sum(1 << shift for shift in range(0, 32, bits)))
    stored = np.ascontiguousarray(zero_words, dtype="<i4").view(np.uint32) + ones
    zeros = np.ascontiguousarray(unpack(stored.view(np.int32), bits, rows).T)
    floats = np.ascontiguousarray(scales.T).astype(np.float32)
    return PackedWeight(codes, floats, zeros if zeros.any() else None, bits)


def read_dense(model: Path, bits: int) -> dict[str, Array]:
    """Every weight of a model tree as floats, packed ones dequantized. bits: 0 for a model without any."""
    packed, plain = split_packed(read_tensors(model), bits)
    return {**plain, **{name: weight.dequantized() for name, weight in packed.items()}}
