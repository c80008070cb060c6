"""ncnn as a toolchain: the rule `ncnn_toolchain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import ClassVar

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
    device_lock,
    is_rounded,
    pass_bytes,
    pass_params,
    weight_tensors,
)

_HERE = Path(__file__).parent
_FORMATS = ("ncnn:fp32", "ncnn:fp16", "ncnn:int8", "ncnn:int4")
_BITS = {"ncnn:int8": 8, "ncnn:int4": 4}
_ACTIVATIONS = frozenset({"silu", "gelu", "gelu_pytorch_tanh", "relu", "quick_gelu"})
"""Those that were compared; of `gelu_new`, pnnx makes another gelu."""
_BLOCK = 32
"""Neighbours in a row that share a scale."""
_WHEELS = {
    "x86_64": "x86_64-manylinux_2_28",
    "aarch64": "aarch64-manylinux_2_28",
    "armv7": "armv7-manylinux_2_36",
}
_RUNTIME_LOCKS = {"armv7": "runtime-armv7.lock"}
"""CPU -> a lock of its own: numpy has no wheel for it, and is the system's."""
_RUNTIME_BYTES = 6 << 20
"""Resident memory of ncnn and of what a first pass leaves, measured with ncnn 1.0.20261020 on x86-64."""
_TEXT_BYTES = {
    ("llama", False): (725, 2237),
    ("llama", True): (1382, 2287),
    ("vit", False): (995, 776),
    ("vit", True): (1212, 797),
}
"""The layers as text: what a model has anyway, and for each of its layers; counted."""


@dataclass(frozen=True)
class NcnnToolchainInfo(FixedPassToolchainInfo):
    """Makes ncnn's `.param` and `.bin`, and runs them in ncnn."""

    families: ClassVar[frozenset[str]] = frozenset({"llama", "vit"})

    def refusal(self, conversion: Conversion) -> str:
        """Activations that ncnn computes otherwise, and integers that would be rounded a second time."""
        model, bits = conversion.model, _BITS.get(conversion.format, 0)
        reason = super().refusal(conversion)
        activation = model.architecture.get("hidden_act", "silu" if model.is_text else "gelu")
        if not reason and activation not in _ACTIVATIONS:
            known = ", ".join(sorted(_ACTIVATIONS))
            reason = f"its activation is `{activation}`, and those that ncnn computes alike are {known}"
        return reason or (_not_packable(model, bits) if bits else "")

    def footprint(self, conversion: Conversion) -> Footprint:
        """The weights to the byte; the text of the layers estimated."""
        format_ = conversion.format
        keys = complete_architecture(conversion.model.architecture)
        weights = _bin_bytes(conversion)
        base, each = _TEXT_BYTES[keys["model_type"], format_ in _BITS]
        text = base + each * int(keys["num_hidden_layers"])
        memory = weights
        if format_ not in _BITS:
            # Matrices are float32 in memory, and while one is loaded there are two copies of it.
            tensors = weight_tensors(keys)
            matrices = [t.parameters for t in tensors if t.role in ("matrix", "output")]
            memory = 4 * (sum(t.parameters for t in tensors) + sum(matrices))
        return Footprint(
            disk=weights + text,
            weights=memory,
            runtime=_RUNTIME_BYTES + pass_bytes(conversion),
            detail={"weights": weights, "layers": text},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The conversion to float32, which all formats and devices share, and the packing of weights."""
        model, prefix = conversion.model, conversion.prefix
        variant = conversion.format.removeprefix("ncnn:")
        binary = ctx.declare_tree(f"{prefix}ncnn")
        converted = binary if variant == "fp32" else ctx.declare_tree(f"{prefix}ncnn-fp32")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="NcnnConvert",
            inputs={"model": model.weights},
            outputs={"ncnn": converted},
            params=pass_params(conversion),
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
        path = _HERE / _RUNTIME_LOCKS.get(platform.cpu, "runtime.lock")
        lock = device_lock(path, platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None


class NcnnToolchain(Rule):
    """ncnn: small models for processors of phones and cameras; converted by pnnx, without a compiler.

    `ncnn:fp32` and `ncnn:fp16` store floats. `ncnn:int8` and `ncnn:int4` are ncnn's block quantization of
    weights: packed weights of the model keep their codes, others are rounded to nearest. With int8 ncnn also
    rounds activations to int8 as it runs; with int4 it computes in float32. The length of a pass is fixed.
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Only what the toolchain can do."""
        return [DefaultInfo(), NcnnToolchainInfo("ncnn", _FORMATS)]


def _not_packable(model: ModelInfo, bits: int) -> str:
    """Why the weights cannot be had in blocks of 32 without a second rounding."""
    for tensor in weight_tensors(model.architecture):
        if model.is_text and tensor.role == "embedding" and tensor.shape[1] % _BLOCK:
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


def _bin_bytes(conversion: Conversion) -> int:
    """Of `model.ncnn.bin`. A tied output matrix is stored a second time."""
    model, length = conversion.model, conversion.sequence_length
    keys = complete_architecture(model.architecture)
    tensors = list(weight_tensors(keys))
    total = 0
    if model.is_text:
        # The causal mask, and sines and cosines of the positions.
        total = 4 * (length * length + 2 * length * int(keys["head_dim"]))
        if keys["tie_word_embeddings"]:
            table = next(t for t in tensors if t.role == "embedding")
            tensors.append(WeightTensor("lm_head.weight", table.shape, "output"))
    elif not keys["qkv_bias"]:  # ncnn's layer has biases in any case.
        total = 4 * 3 * int(keys["hidden_size"]) * int(keys["num_hidden_layers"])
    for tensor in tensors:
        bits = _BITS.get(conversion.format, 0) if is_rounded(model, tensor) else 0
        total += _tensor_bytes(tensor, conversion.format, bits, is_text=model.is_text)
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
    if not bits:
        return 4 + _aligned(size * count)
    rows, columns = tensor.shape
    blocks = rows * ceil(columns / _BLOCK)
    if tensor.role == "embedding":
        return 4 + _aligned(count) + 4 + 4 + _aligned(2 * blocks)
    return _aligned(rows * ceil(columns * bits / 8)) + 4 * blocks


def _aligned(size: int) -> int:
    return size + -size % 4
