"""The rules `onnxruntime_toolchain` and `onnxruntime_genai_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from typing import Any

from modelbuild.api import (
    AnalysisError,
    Artifact,
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
    RuntimeToolchainInfo,
    WeightTensor,
    attention_window,
    complete_architecture,
    declare_calibration,
    declare_onnx_export,
    device_lock,
    is_rounded,
    kv_cache_bytes,
    longest_row,
    optional_vectors,
    pass_bytes,
    shares_heads,
    weight_tensors,
)

_HERE = Path(__file__).parent
_FORMATS = ("onnx:fp32", "onnx:int8", "onnx:int4", "onnx:int8-dynamic", "onnx:int8-static")
_PRODUCTS = ("onnx:int8-dynamic", "onnx:int8-static")
_SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("linux", "windows", "macos", "android"),
    "aarch64": ("linux", "windows", "macos", "android", "ios"),
    "wasm32": ("emscripten",),
}
"""CPU -> the systems that ONNX Runtime is released for."""
_GENAI_ROPES = ("default", "llama3")
"""Rotary embeddings that the model builder knows; others it would leave out, or does for some models only."""
_GENAI_FORMATS = ("genai:fp32", "genai:int8", "genai:int4")
_GENAI_SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("linux", "windows"),
    "aarch64": ("linux", "windows", "macos", "android"),
}
_WHEELS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
"""CPU -> the platform of the wheels of either."""
_BLOCKS = (256, 128, 64, 32, 16)
_GRAPH: Mapping[tuple[str, str], tuple[int, int, int]] = {
    ("text", "fp32"): (3_434, 6_109, 737),
    ("text", "weights"): (2_703, 5_024, 466),
    ("text", "int8-dynamic"): (2_812, 6_156, 466),
    ("text", "int8-static"): (2_957, 6_877, 466),
    ("images", "fp32"): (2_807, 5_795, 0),
    ("images", "weights"): (1_954, 4_655, 0),
    ("images", "int8-dynamic"): (2_066, 5_758, 0),
    ("images", "int8-static"): (2_156, 6_388, 0),
}
"""Bytes of nodes, names and constants: of any model, of each layer, of each layer whose heads share keys."""
_BIAS_BYTES, _NORM_BYTES = {False: 120, True: 203}, {False: 440, True: 732}
"""Whether weights are float32 -> bytes of naming and adding a bias, and of a norm of queries or keys."""
_AHEAD = 32
"""Values of so many numbers, the export computes ahead: a mask, and a class token for each picture."""
_WIDE_BYTES = {True: (474, 290), False: (300, 165)}
"""Whether weights are float32 -> bytes of what computes the mask, and the class token, of others."""
_ZEROS_BYTES = 98
"""Of naming the zero points of one matrix."""
_RUNTIME_BYTES = 60 << 20
"""Peak of a process with a tiny model: 57 MiB (Python, numpy and the library are 47), and activations."""


_GENAI_GRAPH: Mapping[bool, tuple[int, int, int]] = {False: (4_064, 3_441, 90), True: (4_393, 4_246, 51)}
"""With integers or not -> bytes of graph and settings: of any model, of each layer, of a tied matrix."""
_GENAI_BIAS_BYTES, _GENAI_NORM_BYTES, _GENAI_SHAPE_BYTES = 217, 945, 175
"""Of adding a bias, of a norm of queries or keys, and of each shape that those norms write down."""
_GENAI_HEAD = 16
"""Numbers of which the builder's operator for attention takes multiples."""
_BYTE_TOKENS = (259, 6_588)
"""The tokens of byte-level BPE that are no merges, three for control with them, and what they take."""
_QWEN2_TOKENIZER_BYTES = 260
"""Of what transformers adds to a tokenizer of Qwen2."""
_GENAI_RUNTIME_BYTES = 67 << 20
"""Peak of a process with a tiny model: 65 MiB, and activations."""


class OnnxruntimeToolchain(Rule):
    """Makes ONNX files for ONNX Runtime: a tree that holds `model.onnx`.

    `onnx:fp32` is the plain export. `onnx:int8` and `onnx:int4` hold integer weights and compute in floats.
    `onnx:int8-dynamic` and `onnx:int8-static` multiply integers; the range of an activation is taken from the
    tensor itself, or from calibration data. Weights that are integers already are copied, not rounded again.
    """

    calibration_rows: int = 128
    """How many rows `onnx:int8-static` measures activations on."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Say what can be made; the actions are those of whoever converts a model."""
        return [DefaultInfo(), OnnxruntimeToolchainInfo("onnxruntime", _FORMATS, self.calibration_rows)]


@dataclass(frozen=True)
class OnnxruntimeToolchainInfo(FixedPassToolchainInfo):
    """calibration_rows: how many rows activations are measured on."""

    calibration_rows: int = 128

    def refusal(self, conversion: Conversion) -> str:
        """Other devices, and integers that the format could only hold by rounding them again."""
        platform = conversion.platform
        reason = super().refusal(conversion)
        if not reason and platform.os not in _SYSTEMS.get(platform.cpu, ()):
            reason = f"there is no ONNX Runtime for `{platform.cpu}` with `{platform.os}`"
        return reason or _second_rounding(conversion.model, conversion.format)

    def footprint(self, conversion: Conversion) -> Footprint:
        """What every tensor takes, and the graph around them: constants measured on small models."""
        model, format_ = conversion.model, conversion.format
        parts = {
            "weights": 0,
            "embedding": 0,
            "graph": _graph_bytes(model, format_, conversion.sequence_length),
        }
        tensors = weight_tensors(model.architecture)
        for tensor in tensors:
            parts["embedding" if tensor.role == "embedding" else "weights"] += _bytes(tensor, model, format_)
        if model.is_text and not any(tensor.role == "output" for tensor in tensors):
            parts["weights"] += _tied_bytes(tensors[0], model, format_)
        disk = sum(parts.values())
        # While it is loaded, the file and what the kernels make of it are both in memory: measured 2.1 times.
        runtime = _RUNTIME_BYTES + pass_bytes(conversion)
        return Footprint(disk=disk, weights=2 * disk, runtime=runtime, detail=parts)

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The export, which is `onnx:fp32` as it is, and the action that makes something smaller of it."""
        model, format_, prefix = conversion.model, conversion.format, conversion.prefix
        export = declare_onnx_export(ctx, model, conversion.sequence_length, prefix)
        binary = export
        if format_ != "onnx:fp32":
            variant = _variant(format_)
            inputs = {"onnx": export, "model": model.weights}
            if format_ == "onnx:int8-static":
                inputs["calibration"] = self._calibration(ctx, conversion)
            binary = ctx.declare_tree(f"{prefix}{variant}")
            ctx.run(
                tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
                mnemonic="OnnxConvert",
                inputs=inputs,
                outputs={"onnx": binary},
                params={"variant": variant},
                resources=Resources(ram=2 << 30),
                progress=f"converting {ctx.label.name} to {format_}",
            )
        return DeviceBinaryInfo(binary, format_, self.runtime, conversion.platform.label)

    def _calibration(self, ctx: Context, conversion: Conversion) -> Artifact:
        return declare_calibration(
            ctx,
            conversion.model,
            conversion.calibration,
            conversion.format,
            sequence_length=conversion.sequence_length,
            rows=self.calibration_rows,
            prefix=conversion.prefix,
        )

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """ONNX Runtime from its wheel, on Linux."""
        lock = device_lock(_HERE / "runtime.lock", platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None


class OnnxruntimeGenaiToolchain(Rule):
    """Makes the folder that ONNX Runtime GenAI loads: a language model with a KV cache, and its tokenizer.

    Microsoft's model builder writes the graph, which is compared with torch. `genai:fp32` is that graph;
    `genai:int8` and `genai:int4` hold its matrices as integers, those of the model where it has them.
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Say what can be made; the actions are those of whoever converts a model."""
        return [DefaultInfo(), GenaiToolchainInfo("onnxruntime-genai", _GENAI_FORMATS)]


@dataclass(frozen=True)
class GenaiToolchainInfo(RuntimeToolchainInfo):
    """ONNX Runtime GenAI. Its wheels are for desktops and servers; phones have packages of their own."""

    def refusal(self, conversion: Conversion) -> str:
        """Other models and devices, and integers that the format could only hold by rounding them again."""
        model, platform = conversion.model, conversion.platform
        if conversion.format not in self.formats:
            return f"this toolchain makes {', '.join(self.formats)}"
        if not model.is_text:
            return f"ONNX Runtime GenAI takes language models, and this one is for `{model.task}`"
        if platform.os not in _GENAI_SYSTEMS.get(platform.cpu, ()):
            return f"there is no ONNX Runtime GenAI for `{platform.cpu}` with `{platform.os}`"
        if model.format not in ("safetensors", "compressed-tensors", "gptq"):
            return f"weights stored as `{model.format}` are not read here"
        try:
            weight_tensors(model.architecture)
        except AnalysisError as error:
            return error.message
        head = int(complete_architecture(model.architecture)["head_dim"])
        if head % _GENAI_HEAD:
            return f"its heads are {head} numbers wide, and GenAI takes multiples of {_GENAI_HEAD}"
        return _not_computed(model) or _second_rounding(model, conversion.format)

    def footprint(self, conversion: Conversion) -> Footprint:
        """As `onnx:`; rotary tables, the graph and the tokenizer as measured, see README.md."""
        model = conversion.model
        keys = complete_architecture(model.architecture)
        longest = longest_row(keys)
        tensors = weight_tensors(model.architecture)
        onnx = f"onnx:{_variant(conversion.format)}"
        parts = {
            "weights": sum(
                4 * tensor.parameters if _left_float(tensor, model) else _bytes(tensor, model, onnx)
                for tensor in tensors
            ),
            "rotary": 4 * longest * int(keys["head_dim"]),
            "graph": _genai_graph_bytes(model, onnx),
            "tokenizer": _tokenizer_bytes(keys),
        }
        if not any(tensor.role == "output" for tensor in tensors) and not _left_float(tensors[0], model):
            parts["weights"] += _tied_bytes(tensors[0], model, onnx)
        disk = sum(parts.values())
        length = conversion.platform.budget.context_length or longest
        cache = kv_cache_bytes(model.architecture, length, 4)
        return Footprint(disk, 2 * disk, cache, _GENAI_RUNTIME_BYTES, parts)

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """One action: the builder's graph is of no use to others."""
        binary = ctx.declare_tree(f"{conversion.prefix}genai")
        ctx.run(
            tool=PythonTool(_HERE / "genai_tool.py", lock=Lock(_HERE / "genai.lock")),
            mnemonic="GenaiBuild",
            inputs={"model": conversion.model.weights},
            outputs={"genai": binary},
            params={"variant": _variant(conversion.format)},
            resources=Resources(ram=3 << 30),
            progress=f"building {ctx.label.name} for ONNX Runtime GenAI",
        )
        return DeviceBinaryInfo(binary, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """ONNX Runtime GenAI from its wheel, on Linux."""
        lock = device_lock(_HERE / "genai_runtime.lock", platform, _WHEELS)
        return PythonTool(_HERE / "genai_device_tool.py", lock=lock) if lock else None


def _variant(format_: str) -> str:
    return format_.partition(":")[2]


def _not_computed(model: ModelInfo) -> str:
    """What the model builder of GenAI would leave out of a model."""
    keys = model.architecture
    rope = keys.get("rope_parameters") or keys.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in _GENAI_ROPES:
        return f"the model builder leaves out a rotary embedding of type `{kind}`"
    window = attention_window(keys)
    if window and window < longest_row(keys):
        return (
            f"the model builder is not tried with a sliding window, and the model has one of {window} tokens"
        )
    return ""


def _second_rounding(model: ModelInfo, format_: str) -> str:
    quantization = model.quantization
    variant = _variant(format_)
    if not quantization or variant == "fp32":
        return ""
    bits, group = int(quantization["bits"]), int(quantization["group_size"])
    if format_ in _PRODUCTS:
        if bits != 8 or group or not quantization.get("symmetric", True):
            return f"`{format_}` takes integers only of 8 bits, symmetric, with one scale a row"
        return ""
    if (bits == 8) is not (variant == "int8"):
        return f"{bits}-bit weights are not `{format_}`, which would round them again"
    if group and group % _BLOCKS[-1]:
        return f"groups of {group} weights are not made of blocks of {_BLOCKS[-1]}"
    return ""


def _bits(model: ModelInfo, format_: str) -> int:
    """Of a stored code: 3-bit codes take 4."""
    bits = int(model.quantization["bits"]) if model.quantization else 4 if format_ == "onnx:int4" else 8
    return {3: 4}.get(bits, bits)


def _blocks(columns: int, model: ModelInfo, format_: str) -> tuple[int, int]:
    """Weights of a block, and blocks of a row of so many weights."""
    group = int(model.quantization.get("group_size") or columns)
    if not model.quantization and format_ == "onnx:int4":
        group = next((size for size in (32, 16) if columns % size == 0), columns)
    block = next((size for size in _BLOCKS if group % size == 0), 32)
    return block, -(-columns // block)


def _bytes(tensor: WeightTensor, model: ModelInfo, format_: str) -> int:
    if format_ == "onnx:fp32" or not is_rounded(model, tensor):
        return 4 * tensor.parameters
    rows, columns = tensor.shape
    looked_up = tensor.role == "embedding"
    if format_ in _PRODUCTS and not looked_up:
        return rows * columns + _row_bytes(format_) * rows
    bits, (block, blocks) = _bits(model, format_), _blocks(columns, model, format_)
    codes = -(-columns * bits // 8) if looked_up else blocks * block * bits // 8
    zeros = 0 if model.quantization.get("symmetric", True) else -(-blocks * bits // 8)
    return rows * (codes + 4 * blocks + zeros)


def _left_float(tensor: WeightTensor, model: ModelInfo) -> bool:
    """Whether GenAI's builder finds floats: AutoGPTQ's format has integers for layers only."""
    return model.format == "gptq" and tensor.role in ("embedding", "output")


def _tied_bytes(embedding: WeightTensor, model: ModelInfo, format_: str) -> int:
    """What an output matrix takes beside the embedding that it equals."""
    if format_ == "onnx:fp32" or not is_rounded(model, embedding):
        return 0
    rows, columns = embedding.shape
    if format_ in _PRODUCTS:
        return _row_bytes(format_) * rows
    block, blocks = _blocks(columns, model, format_)
    return 0 if blocks * block == columns else rows * (blocks * block * _bits(model, format_) // 8)


def _genai_graph_bytes(model: ModelInfo, format_: str) -> int:
    """Nodes, names, small constants and settings: measured. format_: `onnx:int8` for `genai:int8`."""
    keys = complete_architecture(model.architecture)
    base, layer, tied = _GENAI_GRAPH[format_ != "onnx:fp32"]
    layers = int(keys["num_hidden_layers"])
    total = base + layer * layers + tied * bool(keys["tie_word_embeddings"])
    biases, norms = optional_vectors(keys)
    names = [tensor.name for tensor in weight_tensors(keys)]
    # Query, key and value are one matrix with one bias, which is cut in three before norms.
    together = 2 * sum(name.endswith("q_proj.bias") for name in names)
    total += _GENAI_BIAS_BYTES * (biases - together) + _GENAI_NORM_BYTES * norms
    if norms:
        shapes = {1, int(keys["num_attention_heads"]), int(keys["num_key_value_heads"])}
        total += _GENAI_SHAPE_BYTES * (1 + len(shapes))
    if format_ != "onnx:fp32" and not model.quantization.get("symmetric", True):
        rounded = [t for t in weight_tensors(keys) if is_rounded(model, t) and not _left_float(t, model)]
        total += _ZEROS_BYTES * (len(rounded) - 2 * layers)
    return total


def _tokenizer_bytes(keys: Mapping[str, Any]) -> int:
    """Of `tokenizer.json`, in which a merge has six lines; how long its text is can only be guessed.

    It was 2.5 bytes with 21 merges of English and code, 3.7 with 253, 4.6 with 1,272.
    """
    single, total = _BYTE_TOKENS
    vocabulary = int(keys["vocab_size"])
    merges = max(0, vocabulary - single)
    if merges:
        numbers = sum(len(str(token)) for token in (vocabulary // 2, vocabulary)) / 2
        total += int(merges * (52 + numbers + 2 * (1 + 0.36 * log2(merges))))
    return total + (_QWEN2_TOKENIZER_BYTES if keys["model_type"] == "qwen2" else 0)


def _row_bytes(format_: str) -> int:
    """Scales and, beside an activation that is quantized beforehand, zero points of weights."""
    return 5 if format_ == "onnx:int8-static" else 4


def _graph_bytes(model: ModelInfo, format_: str, length: int) -> int:
    """Nodes, names and small constants: measured, see README.md."""
    variant = _variant(format_)
    kind = "weights" if variant in ("int8", "int4") else variant
    keys = complete_architecture(model.architecture)
    base, layer, shared = _GRAPH["text" if model.is_text else "images", kind]
    layer += shared * shares_heads(keys)
    biases, norms = optional_vectors(keys)
    extra = _BIAS_BYTES[kind == "fp32"] * biases + _NORM_BYTES[kind == "fp32"] * norms
    zeros = 0
    if kind == "weights" and not model.quantization.get("symmetric", True):
        zeros = _ZEROS_BYTES * sum(is_rounded(model, t) for t in weight_tensors(model.architecture))
    return base + layer * int(keys["num_hidden_layers"]) + extra + zeros + _ahead_bytes(keys, length, kind)


def _ahead_bytes(keys: Mapping[str, Any], length: int, kind: str) -> int:
    """Of positions, and of what small models have computed ahead, beyond those of the models measured."""
    if "vocab_size" in keys:
        return 20 * length - 812 if length <= _AHEAD else 8 * (length - 56)
    grid = 1
    for side, patch in zip(_pair(keys["image_size"]), _pair(keys["patch_size"]), strict=True):
        grid *= side // patch
    mask, token = _WIDE_BYTES[kind == "fp32"]
    return mask * (grid + 1 > _AHEAD) + token * (int(keys["hidden_size"]) > _AHEAD) - token


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
