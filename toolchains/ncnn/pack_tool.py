"""Stores the weights of an ncnn model as float16, int8 or int4. Needs numpy and safetensors.

`int8` and `int4` are ncnn's block quantization of weights (`Gemm` with 18=800 or 400): codes, and one scale
for 32 neighbours in a row. Weights that the checkpoint has as integers keep their codes, others are rounded
to nearest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from model_shape import read_shape
from ncnn_file import Array, Layer, Weight, read_layers, write_layers

from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import Request, ToolError

BLOCK = 32
"""Neighbours in a row that share a scale."""


def main(request: Request) -> None:
    """Inputs: float (ncnn's files in float32), model. Outputs: ncnn. Params: variant, such as `int8`."""
    variant = request.params["variant"]
    target = request.outputs["ncnn"]
    target.mkdir()
    layers = read_layers(request.inputs["float"])
    if variant == "fp16":
        packed = [_half(layer) for layer in layers]
    else:
        packed = _Quantizer(_stored(request.inputs["model"]), int(variant.removeprefix("int"))).run(layers)
    write_layers(target, packed)
    read_shape(request.inputs["float"]).write(target)


def _half(layer: Layer) -> Layer:
    """A layer whose matrices are float16."""
    return replace(
        layer,
        weights=tuple(
            Weight(_float16(layer, w.values), tagged=True) if w.tagged else w for w in layer.weights
        ),
    )


def _float16(layer: Layer, values: Array) -> Array:
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise ToolError(f"`{layer.name}` has weights too large for float16", "choose ncnn:fp32")
    return halves


def _stored(model: Path) -> dict[str, PackedWeight]:
    bits = packed_bits(read_config(model))
    return split_packed(read_tensors(model), bits)[0] if bits else {}


class _Quantizer:
    """Packs the matrices of a model; `stored` are those that the checkpoint has as integers."""

    def __init__(self, stored: Mapping[str, PackedWeight], bits: int) -> None:
        self._bits = bits
        self._names = {_content(weight.dequantized()): name for name, weight in stored.items()}
        self._stored = stored
        self._missing = set(self._names.values())

    def run(self, layers: list[Layer]) -> list[Layer]:
        """All layers. Raises ToolError when integers of the checkpoint have no place in the model."""
        packed = [made for layer in layers for made in self._pack(layer)]
        if self._missing:
            raise ToolError(
                f"pnnx changed the weight `{min(self._missing)}`, so that its integers cannot be kept"
            )
        return packed

    def _pack(self, layer: Layer) -> Iterator[Layer]:
        if layer.kind == "Gemm" and layer.number(5) and layer.number(3):
            yield self._gemm(layer, layer.weights)
        elif layer.kind == "MultiHeadAttention":
            yield self._attention(layer)
        elif layer.kind == "InnerProduct":
            yield from self._inner_product(layer)
        elif layer.kind == "Embed" and not layer.number(2):
            yield from self._embed(layer)
        else:
            yield layer

    def _gemm(self, layer: Layer, weights: tuple[Weight, ...]) -> Layer:
        matrix, *rest = weights
        weight = self._weight(layer, matrix.values)
        if weight is None:
            return layer
        data, scales = self._encoded(weight)
        params = {**layer.params, "18": str(self._bits * 100)}
        return replace(layer, params=params, weights=(data, *rest, scales))

    def _attention(self, layer: Layer) -> Layer:
        matrices = [self._weight(layer, each.values) for each in layer.weights[::2]]
        known = [each for each in matrices if each is not None]
        if len(known) < len(matrices):
            return layer
        encoded = [self._encoded(each) for each in known]
        pairs = zip(encoded, layer.weights[1::2], strict=True)
        weights = [weight for (data, _), bias in pairs for weight in (data, bias)]
        params = {**layer.params, "18": str(self._bits * 100)}
        return replace(layer, params=params, weights=(*weights, *(scales for _, scales in encoded)))

    def _encoded(self, weight: PackedWeight) -> tuple[Weight, Weight]:
        """Codes, and what ncnn divides them by."""
        codes = Weight(_pack_rows(weight.codes, self._bits), tagged=False)
        return codes, Weight(np.float32(1) / weight.scales, tagged=False)

    def _inner_product(self, layer: Layer) -> Iterator[Layer]:
        """As a product of matrices: no other layer has quantized weights."""
        matrix, *bias = layer.weights
        rows, columns = matrix.values.shape
        row, product = f"{layer.name}_row", f"{layer.name}_product"
        broadcast = "4" if bias else "-1"
        gemm = Layer(
            "Gemm",
            layer.name,
            (row,),
            (product,),
            {"10": broadcast, "2": "0", "3": "1", "4": "0", "5": "1", "6": "1", "7": "1"}
            | {"8": str(rows), "9": str(columns)},
        )
        yield Layer("Reshape", row, layer.inputs, (row,), {"0": str(columns), "1": "1"})
        yield self._gemm(gemm, (matrix, *(Weight(each.values, tagged=True) for each in bias)))
        yield Layer("Reshape", product, (product,), layer.outputs, {"0": str(rows)})

    def _embed(self, layer: Layer) -> Iterator[Layer]:
        """A table of codes times a table of scales: ncnn's own int8 embedding has one scale for all."""
        (table,) = layer.weights
        weight = self._weight(layer, table.values)
        if weight is None:
            yield layer
            return
        rows, columns = weight.codes.shape
        groups = weight.scales.shape[1]
        if columns % BLOCK:
            raise ToolError(f"an embedding of {columns} numbers is not made of blocks of {BLOCK}")
        name = layer.name
        codes, scales = f"{name}_codes", f"{name}_scales"
        yield Layer("Split", f"{name}_ids", layer.inputs, (f"{codes}_id", f"{scales}_id"))
        for part, values, width in ((codes, weight.codes, columns), (scales, weight.scales, groups)):
            params = {"0": str(width), "1": str(rows), "2": "0", "3": str(rows * width)}
            weights = (Weight(values.astype(np.float16), tagged=True),)
            if part == codes:
                params["18"] = "1"
                weights = (Weight(values, tagged=True), Weight(np.ones(1, np.float32), tagged=False))
            yield Layer("Embed", part, (f"{part}_id",), (part,), params, weights)
            shape = {"0": str(width // groups), "1": str(groups), "2": "-1"}
            yield Layer("Reshape", f"{part}_groups", (part,), (f"{part}_groups",), shape)
        inputs = (f"{codes}_groups", f"{scales}_groups")
        yield Layer("BinaryOp", f"{name}_product", inputs, (f"{name}_product",), {"0": "2"})
        yield Layer("Reshape", name, (f"{name}_product",), layer.outputs, {"0": str(columns), "1": "-1"})

    def _weight(self, layer: Layer, values: Array) -> PackedWeight | None:
        """The codes of a matrix; None where the checkpoint has integers, but not for this one."""
        name = self._names.get(_content(values))
        if name is None:
            return None if self._stored else round_to_nearest(values, self._bits)
        self._missing.discard(name)
        return _in_blocks(name, self._stored[name], self._bits)


def round_to_nearest(values: Array, bits: int) -> PackedWeight:
    """Codes of float weights [rows, columns], the last block of a row may be shorter; float16 scales."""
    rows, columns = values.shape
    # As the rule `quantize` rounds; ncnn multiplies int8 by int8, where -128 has no counterpart.
    highest = (1 << (bits - 1)) - 1
    lowest, reach = (-highest, highest) if bits == 8 else (-highest - 1, highest + 0.5)
    padded = np.pad(values, ((0, 0), (0, -columns % BLOCK))).reshape(rows, -1, BLOCK)
    with np.errstate(over="ignore"):
        scales = (np.abs(padded).max(2) / np.float32(reach)).astype(np.float16).astype(np.float32)
    if not np.isfinite(scales).all():
        raise ToolError("the model holds weights that are too large or no numbers")
    scales[scales == 0] = 1
    codes = np.clip(np.rint(padded / scales[..., None]), lowest, highest).astype(np.int8)
    return PackedWeight(codes.reshape(rows, -1)[:, :columns], scales, None, bits)


def _in_blocks(name: str, weight: PackedWeight, bits: int) -> PackedWeight:
    """The same weights with a scale for each block of 32."""
    columns = weight.codes.shape[1]
    if (
        weight.zeros is not None
        or weight.bits > bits
        or (weight.group_size % BLOCK and weight.group_size != columns)
    ):
        raise ToolError(
            f"`{name}` cannot be stored in {bits} bits and blocks of {BLOCK} without a second rounding"
        )
    first = np.arange(0, columns, BLOCK) // weight.group_size
    return PackedWeight(weight.codes, weight.scales[:, first], None, bits)


def _pack_rows(codes: npt.NDArray[np.int8], bits: int) -> Array:
    """Two's complement, each row a little-endian stream of bits that ends with a whole byte."""
    rows = codes.shape[0]
    stream = np.unpackbits(codes.view(np.uint8)[..., None], axis=2, count=bits, bitorder="little")
    return np.packbits(stream.reshape(rows, -1), axis=1, bitorder="little")


def _content(values: Array) -> tuple[tuple[int, ...], str]:
    """What tells matrices apart: the converter renames them."""
    return values.shape, hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()
