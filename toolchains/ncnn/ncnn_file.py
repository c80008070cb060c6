"""ncnn's two files: `.param`, the layers as text, and `.bin`, their weights in the order of the layers.

The layout is that of ncnn's `ModelBin`: a weight is raw, float32 or bytes, or it is a tag of four bytes with
data in the type it names. Data ends at a multiple of four bytes. Needs numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.request import ToolError

Array = npt.NDArray[Any]

PARAM, BIN = "model.ncnn.param", "model.ncnn.bin"
_MAGIC = "7767517"
_TAGS: Mapping[str, bytes] = {
    "float32": b"\0\0\0\0",
    "float16": b"\x47\x6b\x30\x01",
    "int8": b"\x38\x4b\x0d\x00",
}
_WITHOUT_WEIGHTS = frozenset(
    (
        *(
            "Input",
            "Split",
            "Reshape",
            "Permute",
            "Concat",
            "Crop",
            "Slice",
            "Squeeze",
            "ExpandDims",
            "Flatten",
        ),
        *("BinaryOp", "UnaryOp", "MatMul", "Tile", "RotaryEmbed", "SDPA", "Softmax"),
        *("Swish", "GELU", "ReLU", "Sigmoid", "TanH"),
    )
)


@dataclass(frozen=True)
class Weight:
    """One array of a layer. tagged: whether its type stands in front of it."""

    values: Array
    tagged: bool

    def encoded(self) -> bytes:
        """As it stands in the file."""
        data = np.ascontiguousarray(self.values).tobytes()
        tag = _TAGS[self.values.dtype.name] if self.tagged else b""
        return tag + data + bytes(-len(data) % 4)


@dataclass(frozen=True)
class Layer:
    """One line of `.param`. params: `0=256` as key and text."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[Weight, ...] = ()

    def number(self, key: int, default: int = 0) -> int:
        """An integer parameter."""
        return int(self.params.get(str(key), default))

    @property
    def line(self) -> str:
        """The layer's line."""
        blobs = " ".join((*self.inputs, *self.outputs))
        params = "".join(f" {key}={value}" for key, value in self.params.items())
        return f"{self.kind:<24} {self.name:<24} {len(self.inputs)} {len(self.outputs)} {blobs}{params}\n"


def read_layers(folder: Path) -> list[Layer]:
    """The layers of a model in float32. Raises ToolError for a layer whose weights are not known here."""
    data = memoryview((folder / BIN).read_bytes())
    at, layers = 0, []
    magic, _, *lines = (folder / PARAM).read_text().splitlines()
    if magic != _MAGIC:
        raise ToolError(f"`{PARAM}` is not a model of ncnn")
    for line in lines:
        kind, name, inputs, outputs, *rest = line.split()
        first, end = int(inputs), int(inputs) + int(outputs)
        params = dict(item.split("=", 1) for item in rest[end:])
        layer = Layer(kind, name, tuple(rest[:first]), tuple(rest[first:end]), params)
        weights = []
        for shape, tagged in _shapes(layer):
            if tagged:
                if bytes(data[at : at + 4]) != _TAGS["float32"]:
                    raise ToolError(f"the weights of `{name}` are not float32")
                at += 4
            values = np.frombuffer(data, "<f4", prod(shape), at).reshape(shape)
            at += values.nbytes
            weights.append(Weight(values, tagged))
        layers.append(Layer(kind, name, layer.inputs, layer.outputs, params, tuple(weights)))
    if at != len(data):
        raise ToolError(f"`{BIN}` holds {len(data)} bytes, of which the layers take {at}")
    return layers


def write_layers(folder: Path, layers: list[Layer]) -> None:
    """Write both files."""
    blobs = sum(len(layer.outputs) for layer in layers)
    text = f"{_MAGIC}\n{len(layers)} {blobs}\n" + "".join(layer.line for layer in layers)
    (folder / PARAM).write_text(text)
    with (folder / BIN).open("wb") as stream:
        for layer in layers:
            for weight in layer.weights:
                stream.write(weight.encoded())


def _shapes(layer: Layer) -> list[tuple[tuple[int, ...], bool]]:
    """The shapes of a layer's weights in their order, and whether they are tagged."""
    number = layer.number
    if layer.kind in _WITHOUT_WEIGHTS:
        return []
    if layer.kind == "MemoryData" and number(21, 1) == 1:
        sizes = (number(0), number(1), number(11), number(2))
        return [(tuple(size for size in reversed(sizes) if size), False)]
    if layer.kind == "Embed" and not number(18):
        return [((number(1), number(0)), True), *_bias(number(2), number(0))]
    if layer.kind == "RMSNorm":
        return [((number(0),), False)] if number(2, 1) else []
    if layer.kind == "LayerNorm":
        return [((number(0),), False)] * 2 if number(2, 1) else []
    if layer.kind == "InnerProduct" and not number(8):
        return [((number(0), number(2) // number(0)), True), *_bias(number(1), number(0))]
    if layer.kind == "Convolution" and not number(8):
        return [((number(6),), True), *_bias(number(5), number(0))]
    if layer.kind == "MultiHeadAttention" and not number(18) and not number(7):
        return _attention(layer)
    if layer.kind == "Gemm" and not number(18) and not number(4):
        return _gemm(layer)
    raise ToolError(f"ncnn's layer `{layer.name}` of type `{layer.kind}` is not known here")


def _bias(wanted: int, size: int) -> list[tuple[tuple[int, ...], bool]]:
    return [((size,), False)] if wanted else []


def _attention(layer: Layer) -> list[tuple[tuple[int, ...], bool]]:
    """Matrix and bias of q, k, v and of the output."""
    inner = layer.number(0)
    outer = layer.number(2) // inner
    columns = (outer, layer.number(3, inner), layer.number(4, inner))
    projections = [shape for size in columns for shape in (((inner, size), True), ((inner,), False))]
    return [*projections, ((outer, inner), True), ((outer,), False)]


def _gemm(layer: Layer) -> list[tuple[tuple[int, ...], bool]]:
    rows, columns = layer.number(8), layer.number(9)
    shapes: list[tuple[tuple[int, ...], bool]] = []
    if layer.number(5):
        shapes.append(((rows, columns) if layer.number(3) else (columns, rows), True))
    broadcast = layer.number(10)
    if layer.number(6) and broadcast != -1:
        sizes = (1, layer.number(7), layer.number(7), layer.number(7) * rows, rows)
        shapes.append(((sizes[broadcast],), True))
    return shapes
