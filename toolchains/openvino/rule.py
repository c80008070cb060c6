"""The rule `openvino_toolchain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelbuild.api import (
    Context,
    Conversion,
    DefaultInfo,
    DeviceBinaryInfo,
    FixedPassToolchainInfo,
    Footprint,
    Lock,
    ModelInfo,
    PlatformInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    WeightTensor,
    complete_architecture,
    declare_onnx_export,
    device_lock,
    is_rounded,
    optional_vectors,
    pass_bytes,
    shares_heads,
    weight_tensors,
)

_HERE = Path(__file__).parent
_FORMATS = ("openvino:fp32", "openvino:int8", "openvino:int4")
_SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("linux", "windows"),
    "aarch64": ("linux", "macos"),
}
"""CPU -> the systems that OpenVINO is released for."""
_WHEELS = {"x86_64": "x86_64-manylinux_2_35", "aarch64": "aarch64-manylinux_2_35"}
"""CPU -> the platform of its wheels."""


@dataclass(frozen=True)
class Nodes:
    """A part of `model.xml`, counted in files whose sizes all differ.

    text: its bytes without the numbers that differ from model to model. nodes: how many; each says its number
    twice. edges: how many; each says two of those. constants: how many nodes say a place in `model.bin`.
    sizes: how often a size of the model is written, by its name.
    """

    text: int
    nodes: int
    edges: int
    constants: int
    sizes: Mapping[str, int] = field(default_factory=dict)


_TEXT = (
    Nodes(14_190, 47, 43, 22, {"row": 59, "hidden": 18, "vocabulary": 8, "head": 9, "half": 8}),
    Nodes(
        *(28_232, 70, 114, 16),
        {"row": 134, "hidden": 54, "queries": 10, "keys": 10, "heads": 38, "key_heads": 20}
        | {"head": 42, "half": 12, "inner": 20},
    ),
)
"""Of any language model, and of each of its layers."""
_SHARED = (
    Nodes(555, 3, 0, 3),
    Nodes(2_822, 6, 12, 0, {"row": 12, "head": 12, "key_heads": 12, "sharers": 4}),
)
"""The same of heads that share keys and values."""
_SHORT = Nodes(-1_466, -4, -7, 0, {"row": -4})
"""Of a language model whose mask the export computes ahead."""
_AHEAD = 32
"""Values of so many numbers, the export computes ahead."""
_TIED = Nodes(379, 1, 2, 0)
"""Of turning an embedding that is the output matrix too."""
_TIED_INTEGERS = Nodes(-198, -1, 0, -1, {"rows": -2, "columns": -2})
"""Of the same as integers, which are scaled once."""
_HEAD_NORM = Nodes(3_458, 9, 13, 2, {"row": 15, "head": 10, "norm_heads": 15})
_BIAS = Nodes(618, 2, 2, 1, {"row": 2, "rows": 5})
_IMAGES = (
    Nodes(
        *(18_317, 62, 57, 33),
        {"row": 27, "hidden": 47, "labels": 10, "side": 6, "patch": 6, "grid": 10, "patches": 4},
    ),
    Nodes(25_479, 73, 92, 27, {"row": 107, "hidden": 99, "heads": 37, "head": 26, "inner": 24}),
)
"""Of any classifier, and of each of its layers with their biases."""
_FEW_PATCHES = Nodes(-2_192, -7, -9, -3, {"row": -5})
_NARROW = Nodes(-631, -2, -2, -1, {"hidden": -2})
"""Of a classifier whose mask, or class token, the export computes ahead."""
_MATRIX = Nodes(935, 3, 3, 1, {"rows": 7, "columns": 4})
"""Of scaling integers, one scale a row."""
_GROUPS = Nodes(1_645, 5, 5, 2, {"rows": 9, "columns": -1, "groups": 10, "group": 7})
"""The same with several scales a row."""
_ZEROS = Nodes(1_012, 3, 3, 1, {"rows": 7, "groups": 7, "group": 2})
"""Of taking off zero points."""
_RUNTIME_BYTES = 100 << 20
"""Peak of a process with a tiny model: 98 MiB, and activations."""


class OpenvinoToolchain(Rule):
    """Makes OpenVINO's two files, `model.xml` and `model.bin`, in a tree.

    `openvino:int8` and `openvino:int4` hold weights as integers, which are scaled where they are used;
    activations stay float32. Weights that are integers already are copied, not rounded again.
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Say what can be made; the actions are those of whoever converts a model."""
        return [DefaultInfo(), OpenvinoToolchainInfo("openvino", _FORMATS)]


@dataclass(frozen=True)
class OpenvinoToolchainInfo(FixedPassToolchainInfo):
    """OpenVINO, on the CPU."""

    def refusal(self, conversion: Conversion) -> str:
        """Other devices, and integers that the format could only hold by rounding them again."""
        model, format_, platform = conversion.model, conversion.format, conversion.platform
        reason = super().refusal(conversion)
        if reason:
            return reason
        if platform.os not in _SYSTEMS.get(platform.cpu, ()):
            return f"there is no OpenVINO for `{platform.cpu}` with `{platform.os}`"
        if model.quantization and format_ != "openvino:fp32":
            bits = int(model.quantization["bits"])
            if (bits == 8) is not (format_ == "openvino:int8"):
                return f"{bits}-bit weights are not `{format_}`, which would round them again"
        return ""

    def footprint(self, conversion: Conversion) -> Footprint:
        """What every tensor takes, and the graph around them: counted, see README.md."""
        model, format_ = conversion.model, conversion.format
        parts = {
            "weights": sum(_bytes(t, model, format_) for t in weight_tensors(model.architecture)),
            "graph": _graph_bytes(conversion) + _constant_bytes(conversion),
        }
        disk = sum(parts.values())
        # While it is compiled, the files and what the kernels make of them are both in memory: 2.3 times.
        runtime = _RUNTIME_BYTES + pass_bytes(conversion)
        return Footprint(disk=disk, weights=2 * disk, runtime=runtime, detail=parts)

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The export that other toolchains share, and its conversion."""
        model, format_, prefix = conversion.model, conversion.format, conversion.prefix
        variant = format_.partition(":")[2]
        inputs = {"onnx": declare_onnx_export(ctx, model, conversion.sequence_length, prefix)}
        if variant != "fp32":
            inputs["model"] = model.weights
        binary = ctx.declare_tree(f"{prefix}openvino")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="OpenvinoConvert",
            inputs=inputs,
            outputs={"openvino": binary},
            params={"variant": variant},
            resources=Resources(ram=2 << 30),
            progress=f"converting {ctx.label.name} to {format_}",
        )
        return DeviceBinaryInfo(binary, format_, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """OpenVINO from its wheel, on Linux."""
        lock = device_lock(_HERE / "requirements.lock", platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None


def _bytes(tensor: WeightTensor, model: ModelInfo, format_: str) -> int:
    """Codes, float32 scales and, for asymmetric weights, zero points."""
    if format_ == "openvino:fp32" or not is_rounded(model, tensor):
        return 4 * tensor.parameters
    rows, columns = tensor.shape
    bits = 8 if format_ == "openvino:int8" else 4
    scales = rows * (columns // _group(columns, model, format_))
    zeros = 0 if model.quantization.get("symmetric", True) else scales
    return (rows * columns * bits + zeros * bits + 7) // 8 + 4 * scales


def _group(columns: int, model: ModelInfo, format_: str) -> int:
    """Weights of a row that share a scale."""
    if model.quantization:
        return int(model.quantization["group_size"]) or columns
    if format_ == "openvino:int4":
        return next((size for size in (32, 16) if columns % size == 0), columns)
    return columns


def _constant_bytes(conversion: Conversion) -> int:
    """Of `model.bin`, but for weights: positions and angles, and small tables of shapes."""
    model, keys = conversion.model, complete_architecture(conversion.model.architecture)
    shapes = {t.shape for t in weight_tensors(keys) if _is_grouped(t, model, conversion.format)}
    total = 16 * len(shapes)
    if not model.is_text:
        sizes = _sizes(keys, 0)
        return total + 336 + min(0, sizes["row"] - _AHEAD) - 24 * (sizes["hidden"] <= _AHEAD)
    length = conversion.sequence_length
    total += 8 * length + 2 * int(keys["head_dim"]) + (324 if shares_heads(keys) else 244)
    if length <= _AHEAD:
        total += 4 * length - 32
    return total + (16 if keys["tie_word_embeddings"] and not _ties_integers(model, conversion.format) else 0)


def _graph_bytes(conversion: Conversion) -> int:
    """Of `model.xml`: its text, and the numbers in it, which are as long as they have digits."""
    parts = list(_parts(conversion))
    nodes = sum(count * part.nodes for count, part, _ in parts)
    edges = sum(count * part.edges for count, part, _ in parts)
    total = sum(count * part.text for count, part, _ in parts)
    for count, part, sizes in parts:
        total += count * sum(times * _digits(sizes[name]) for name, times in part.sizes.items())
    numbers = sum(_digits(number) for number in range(nodes))
    total += numbers * 2 * (nodes + edges) // nodes
    return total + _places(conversion, sum(count * part.constants for count, part, _ in parts))


def _places(conversion: Conversion, constants: int) -> int:
    """Of where constants lie in `model.bin`, and of their sizes; most of those that are no weights have 8."""
    place, places, lengths = 0, 0, 0
    tensors = weight_tensors(conversion.model.architecture)
    for tensor in tensors:
        size = _bytes(tensor, conversion.model, conversion.format)
        places, lengths, place = places + _digits(place), lengths + _digits(size), place + size
    return constants * places // len(tensors) + lengths + 3 * (constants - len(tensors)) // 2


def _parts(conversion: Conversion) -> Iterator[tuple[int, Nodes, Mapping[str, int]]]:
    """How often each part is in the graph, and the sizes that it writes."""
    model, keys = conversion.model, complete_architecture(conversion.model.architecture)
    sizes = _sizes(keys, conversion.sequence_length)
    layers = int(keys["num_hidden_layers"])
    base, layer = _TEXT if model.is_text else _IMAGES
    yield 1, base, sizes
    yield layers, layer, sizes
    if shares_heads(keys):
        yield 1, _SHARED[0], sizes
        yield layers, _SHARED[1], sizes
    if sizes["row"] <= _AHEAD:
        yield 1, _SHORT if model.is_text else _FEW_PATCHES, sizes
    if not model.is_text and sizes["hidden"] <= _AHEAD:
        yield 1, _NARROW, sizes
    if keys.get("tie_word_embeddings"):
        rows, columns = weight_tensors(keys)[0].shape
        part = _TIED_INTEGERS if _ties_integers(model, conversion.format) else _TIED
        yield 1, part, {"rows": rows, "columns": columns}
    tensors = weight_tensors(keys)
    if model.is_text:
        for width in (t.shape[0] for t in tensors if t.name.endswith("_proj.bias")):
            yield 1, _BIAS, {**sizes, "rows": width}
    else:
        yield optional_vectors(keys)[0], _BIAS, {**sizes, "rows": sizes["hidden"]}
    for name in (t.name for t in tensors if t.name.endswith(("q_norm.weight", "k_norm.weight"))):
        yield 1, _HEAD_NORM, {**sizes, "norm_heads": sizes["heads" if "q_norm" in name else "key_heads"]}
    for tensor in tensors:
        yield from _scaling(tensor, model, conversion.format)


def _scaling(
    tensor: WeightTensor, model: ModelInfo, format_: str
) -> Iterator[tuple[int, Nodes, Mapping[str, int]]]:
    """What makes floats of the integers of one matrix."""
    if format_ == "openvino:fp32" or not is_rounded(model, tensor):
        return
    rows, columns = tensor.shape
    group = _group(columns, model, format_)
    sizes = {"rows": rows, "columns": columns, "groups": columns // group, "group": group}
    yield 1, _GROUPS if group < columns else _MATRIX, sizes
    if not model.quantization.get("symmetric", True):
        yield 1, _ZEROS, sizes


def _sizes(keys: Mapping[str, Any], length: int) -> dict[str, int]:
    """The sizes of a model that its graph writes down. length: of a row of tokens."""
    hidden, heads = int(keys["hidden_size"]), int(keys["num_attention_heads"])
    sizes = {"hidden": hidden, "heads": heads, "inner": int(keys["intermediate_size"])}
    if "vocab_size" not in keys:
        side, patch = (
            size if isinstance(size, int) else size[0] for size in (keys["image_size"], keys["patch_size"])
        )
        grid = side // patch
        more = {"side": side, "patch": patch, "grid": grid, "patches": grid**2, "row": grid**2 + 1}
        return {**sizes, **more, "labels": int(keys["num_labels"]), "head": hidden // heads}
    head, shared = int(keys["head_dim"]), int(keys["num_key_value_heads"])
    more = {"head": head, "half": head // 2, "key_heads": shared, "sharers": heads // shared}
    more |= {"queries": heads * head, "keys": shared * head, "vocabulary": int(keys["vocab_size"])}
    return {**sizes, **more, "row": length}


def _ties_integers(model: ModelInfo, format_: str) -> bool:
    """Whether an embedding that is the output matrix too is integers."""
    return format_ != "openvino:fp32" and is_rounded(model, weight_tensors(model.architecture)[0])


def _is_grouped(tensor: WeightTensor, model: ModelInfo, format_: str) -> bool:
    """Whether several scales of a row make the integers of a matrix a table of three dimensions."""
    if format_ == "openvino:fp32" or not is_rounded(model, tensor):
        return False
    return _group(tensor.shape[1], model, format_) < tensor.shape[1]


def _digits(number: int) -> int:
    return len(str(number))
