"""ncnn as a toolchain: the rule `ncnn_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from modelbuild.api import (
    AnalysisError,
    Context,
    Conversion,
    DefaultInfo,
    DeviceBinaryInfo,
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
    complete_architecture,
    weight_tensors,
)

_HERE = Path(__file__).parent
_TEXT = ("text_generation", "language_modeling")
_FAMILIES = ("llama", "vit")
_FORMATS = ("ncnn:fp32", "ncnn:fp16", "ncnn:int8", "ncnn:int4")
_BITS = {"ncnn:int8": 8, "ncnn:int4": 4}
_BLOCK = 32
"""Neighbours in a row that share a scale."""
_RUNTIME_LOCK = _HERE / "runtime.lock"
_PYTHON = "3.11"
_WHEELS = {
    "x86_64": Lock(_RUNTIME_LOCK, "x86_64-manylinux_2_28", _PYTHON),
    "aarch64": Lock(_RUNTIME_LOCK, "aarch64-manylinux_2_28", _PYTHON),
    # numpy has no wheel for it, and is the system's.
    "armv7": Lock(_HERE / "runtime-armv7.lock", "armv7-manylinux_2_36", _PYTHON),
}
_RUNTIME_BYTES = 6 << 20
"""Resident memory of ncnn and of what a first pass leaves, measured with ncnn 1.0.20261020 on x86-64."""
_TOKENS = 64
"""The length of a pass that sizes are told for: the default of `device_binary`."""
_TEXT_BYTES = {
    ("llama", False): (725, 2237),
    ("llama", True): (1382, 2287),
    ("vit", False): (995, 776),
    ("vit", True): (1212, 797),
}
"""The layers as text: what a model has anyway, and for each of its layers; counted."""


@dataclass(frozen=True)
class NcnnToolchainInfo(RuntimeToolchainInfo):
    """Makes ncnn's `.param` and `.bin`, and runs them in ncnn."""

    def refusal(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> str:
        """The task, the family, and integers that would have to be rounded a second time."""
        if format_ not in self.formats:
            return f"this toolchain makes {', '.join(self.formats)}"
        if model.task not in (*_TEXT, "image_classification"):
            return f"ncnn is not tried with models for {model.task}"
        family = model.architecture.get("model_type")
        if family not in _FAMILIES:
            return f"ncnn is not tried with a model of type `{family}`, only with {', '.join(_FAMILIES)}"
        try:
            tensors = weight_tensors(model.architecture)
        except AnalysisError as error:
            return error.message
        bits = _BITS.get(format_)
        return _not_packable(model, tensors, bits) if bits else ""

    def footprint(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> Footprint:
        """The weights to the byte, for passes of 64 tokens; the text of the layers estimated."""
        keys = complete_architecture(model.architecture)
        weights = _bin_bytes(model, format_)
        base, each = _TEXT_BYTES[keys["model_type"], format_ in _BITS]
        text = base + each * int(keys["num_hidden_layers"])
        memory = weights
        if format_ not in _BITS:
            # Matrices are float32 in memory, and while one is loaded there are two copies of it.
            matrices = [t for t in weight_tensors(keys) if t.role in ("matrix", "output")]
            memory = 4 * sum(t.parameters for t in weight_tensors(keys)) + 4 * sum(
                t.parameters for t in matrices
            )
        return Footprint(
            disk=weights + text,
            weights=memory,
            runtime=_RUNTIME_BYTES + _pass_bytes(keys),
            detail={"weights": weights, "layers": text},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The conversion to float32, which all formats and devices share, and the packing of weights."""
        model, prefix = conversion.model, conversion.prefix
        reason = self.refusal(model, conversion.format, conversion.platform)
        if reason:
            ctx.fail(f"the model cannot be had as {conversion.format}: {reason}")
        variant = conversion.format.removeprefix("ncnn:")
        binary = ctx.declare_tree(f"{prefix}ncnn")
        converted = binary if variant == "fp32" else ctx.declare_tree(f"{prefix}ncnn-fp32")
        params: dict[str, object] = {"task": "image_classification"}
        if model.task in _TEXT:
            params = {"task": "language_model", "sequence_length": conversion.sequence_length}
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="NcnnConvert",
            inputs={"model": model.weights},
            outputs={"ncnn": converted},
            params=params,
            resources=Resources(ram=2 << 30),
            progress=f"converting {ctx.label.name} to ncnn",
        )
        if variant != "fp32":
            ctx.run(
                tool=PythonTool(_HERE / "pack_tool.py", ("numpy", "safetensors")),
                mnemonic="NcnnPack",
                inputs={"float": converted, "model": model.weights},
                outputs={"ncnn": binary},
                params={"variant": variant},
                resources=Resources(ram=1 << 30),
                progress=f"packing {ctx.label.name} as {variant}",
            )
        return DeviceBinaryInfo(binary, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """The wheel of ncnn, which there is for Linux on x86-64, aarch64 and armv7."""
        if platform.os != "linux" or platform.cpu not in _WHEELS:
            return None
        lock = _WHEELS[platform.cpu]
        if platform.runner is None or platform.runner.kind == "local":
            lock = Lock(_RUNTIME_LOCK)
        return PythonTool(_HERE / "device_tool.py", lock=lock)


class NcnnToolchain(Rule):
    """ncnn: small models for processors of phones and cameras; converted by pnnx, without a compiler.

    `ncnn:fp32` and `ncnn:fp16` store floats. `ncnn:int8` and `ncnn:int4` are ncnn's block quantization of
    weights: packed weights of the model keep their codes, others are rounded to nearest. With int8 ncnn also
    rounds activations to int8 as it runs; with int4 it computes in float32. The length of a pass is fixed.
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Only what the toolchain can do."""
        return [DefaultInfo(), NcnnToolchainInfo("ncnn", _FORMATS)]


def _not_packable(model: ModelInfo, tensors: Sequence[WeightTensor], bits: int) -> str:
    """Why the weights cannot be had in blocks of 32 without a second rounding."""
    for tensor in tensors:
        if model.task in _TEXT and tensor.role == "embedding" and tensor.shape[1] % _BLOCK:
            return f"rows of `{tensor.name}` are {tensor.shape[1]} wide, and not made of blocks of {_BLOCK}"
    quantization = model.quantization
    if not quantization:
        return ""
    if not quantization.get("symmetric", True):
        return "its weights are asymmetric, and ncnn knows no zero points"
    if quantization["bits"] > bits:
        return f"its {quantization['bits']}-bit weights would be rounded a second time"
    group = quantization["group_size"]
    if group % _BLOCK:
        return f"its groups of {group} weights are not made of blocks of {_BLOCK}"
    return ""


def _bin_bytes(model: ModelInfo, format_: str) -> int:
    """Of `model.ncnn.bin`. A tied output matrix is stored a second time."""
    keys = complete_architecture(model.architecture)
    tensors = list(weight_tensors(keys))
    is_text = keys["model_type"] != "vit"
    constants = 0
    if is_text:
        # The causal mask, and sines and cosines of the positions.
        constants = 4 * (_TOKENS * _TOKENS + 2 * _TOKENS * int(keys["head_dim"]))
        if keys["tie_word_embeddings"]:
            table = next(t for t in tensors if t.role == "embedding")
            tensors.append(WeightTensor("lm_head.weight", table.shape, "output"))
    packed = bool(model.quantization)
    floats = packed and model.quantization.get("embeddings") == "float"
    total = constants
    for tensor in tensors:
        outer = is_text and tensor.role in ("embedding", "output")
        bits = 0 if outer and floats else _BITS.get(format_, 0)
        total += _tensor_bytes(tensor, format_, bits, is_text=is_text)
    return total


def _tensor_bytes(tensor: WeightTensor, format_: str, bits: int, *, is_text: bool) -> int:
    size = 2 if format_ == "ncnn:fp16" else 4
    count = tensor.parameters
    if tensor.role == "vector":
        # Biases that ncnn adds inside of a product of matrices have a tag and are halved with it.
        inside = tensor.name.endswith(".bias") and "norm" not in tensor.name and "patch" not in tensor.name
        inside = inside and (
            is_text or ".mlp." in tensor.name or (tensor.name == "classifier.bias" and bits > 0)
        )
        return 4 + _aligned(size * count) if inside else 4 * count
    if not bits or (tensor.role == "embedding" and not is_text):
        return 4 + _aligned(size * count)
    rows, columns = tensor.shape
    blocks = rows * ceil(columns / _BLOCK)
    if tensor.role == "embedding":
        return 4 + _aligned(count) + 4 + 4 + _aligned(2 * blocks)
    return _aligned(rows * ceil(columns * bits / 8)) + 4 * blocks


def _aligned(size: int) -> int:
    return size + -size % 4


def _pass_bytes(keys: Mapping[str, Any]) -> int:
    """What one pass takes at most: attention scores, two wide rows and some narrow ones a token, float32."""
    hidden, inner = int(keys["hidden_size"]), int(keys["intermediate_size"])
    tokens = _TOKENS
    if keys["model_type"] == "vit":
        sides = [
            size if isinstance(size, int) else size[0] for size in (keys["image_size"], keys["patch_size"])
        ]
        tokens = (sides[0] // sides[1]) ** 2 + 1
    widest = max(inner, int(keys.get("vocab_size") or 0))
    return 4 * tokens * (int(keys["num_attention_heads"]) * tokens + 2 * widest + 6 * hidden)
