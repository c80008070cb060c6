"""Core ML as a toolchain: the rule `coreml_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from modelbuild.api import (
    Context,
    Conversion,
    DefaultInfo,
    DeviceBinaryInfo,
    FixedPassToolchainInfo,
    Footprint,
    Lock,
    PlatformInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    complete_architecture,
    pass_bytes,
    pass_params,
    shares_heads,
    weight_tensors,
)

_HERE = Path(__file__).parent
_SYSTEMS = ("ios", "macos")
_SIZES = {"coreml:fp16": 2, "coreml:fp32": 4}
"""Format -> bytes of a number."""
_BLOB = 64
"""What arrays are aligned to, and the metadata in front of each."""
_INLINE = 10
"""Arrays of fewer numbers are part of the program."""
_SHARED = 100
"""Of arrays of so many numbers, coremltools stores equal ones once."""
_MANIFEST_BYTES = 617
_PROGRAM_BYTES = {
    ("llama", "coreml:fp32"): (3325, 13708),
    ("llama", "coreml:fp16"): (4023, 15807),
    ("vit", "coreml:fp32"): (5389, 8905),
    ("vit", "coreml:fp16"): (6412, 9990),
}
"""The program without its weights: what a model has anyway, and for each of its layers; counted."""
_GROUPED_BYTES = {"coreml:fp32": 1_620, "coreml:fp16": 1_790}
"""What a layer has besides when heads share keys; counted."""
_ZERO_BYTES, _BIAS_BYTES = 145, 200
"""Of naming a bias that coremltools adds beyond the three of every language model, and one of its own."""

Target = Literal["iOS15", "iOS16", "iOS17", "iOS18"]


@dataclass(frozen=True)
class CoreMlToolchainInfo(FixedPassToolchainInfo):
    """Makes `.mlpackage` trees. target: the oldest system that may load them."""

    families: ClassVar[frozenset[str]] = frozenset({"llama", "vit"})

    target: Target = "iOS16"

    def refusal(self, conversion: Conversion) -> str:
        """Systems that are not Apple's."""
        platform = conversion.platform
        other = f"Core ML is part of Apple's systems, and `{platform.label}` is none of them"
        return super().refusal(conversion) or ("" if platform.os in _SYSTEMS else other)

    def footprint(self, conversion: Conversion) -> Footprint:
        """The weights to the byte, the program about. Memory: weights and one pass.

        What Core ML itself takes is not known here.
        """
        format_ = conversion.format
        keys = complete_architecture(conversion.model.architecture)
        weights = _weight_bytes(keys, _SIZES[format_], conversion.sequence_length)
        program = _program_bytes(keys, format_)
        return Footprint(
            disk=weights + program + _MANIFEST_BYTES,
            weights=weights,
            runtime=pass_bytes(conversion, _SIZES[format_]),
            detail={"weights": weights, "program": program, "manifest": _MANIFEST_BYTES},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """One action, with nothing of the device in its key."""
        package = ctx.declare_tree(f"{conversion.prefix}model.mlpackage")
        params = {"precision": conversion.format.removeprefix("coreml:"), "target": self.target}
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="CoreMlConvert",
            inputs={"model": conversion.model.weights},
            outputs={"package": package},
            params={**pass_params(conversion), **params},
            resources=Resources(ram=2 << 30),
            progress=f"converting {ctx.label.name} to Core ML",
        )
        return DeviceBinaryInfo(package, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """None: the runtime is part of Apple's systems, and modelbuild runs on Linux."""
        return None

    def why_not_run(self, platform: PlatformInfo) -> str:
        """Always the same reason."""
        return (
            "only macOS and iOS run Core ML; here its program is computed with numpy and compared with torch"
        )


class CoremlToolchain(Rule):
    """Core ML: `.mlpackage` trees for Apple's systems, made on Linux.

    Nothing but Apple's systems can run one. What can be checked here is checked as part of the conversion:
    the program in the package, read back and computed with numpy, must give the logits of torch. Packed
    integer weights become the floats they stand for. The length of a pass is fixed.
    """

    minimum_deployment_target: Target = "iOS16"
    """The oldest system that may load a package; iOS16 goes with macOS 13, and so on."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Only what the toolchain can do."""
        return [
            DefaultInfo(),
            CoreMlToolchainInfo("Core ML", tuple(_SIZES), self.minimum_deployment_target),
        ]


def _program_bytes(keys: Mapping[str, Any], format_: str) -> int:
    """Operations and names."""
    base, each = _PROGRAM_BYTES[keys["model_type"], format_]
    each += _GROUPED_BYTES[format_] if shares_heads(keys) else 0
    biases = 0
    if keys["model_type"] != "vit":
        own = sum(tensor.name.endswith(".bias") for tensor in weight_tensors(keys))
        biases = _ZERO_BYTES * (len(_zero_biases(keys)) - 3) + _BIAS_BYTES * own
    return base + each * int(keys["num_hidden_layers"]) + biases


def _weight_bytes(keys: Mapping[str, Any], size: int, length: int) -> int:
    """Of `weight.bin`: a header, and each array with its metadata; arrays of a few numbers lie elsewhere."""
    counts = [tensor.parameters for tensor in weight_tensors(keys)] + _zero_biases(keys)
    if keys["model_type"] != "vit":
        # The causal mask, cosines and sines.
        counts += [length * length, *[length * int(keys["head_dim"])] * 2]
    return _BLOB + sum(_BLOB + _aligned(count * size) for count in counts if count >= _INLINE)


def _zero_biases(keys: Mapping[str, Any]) -> list[int]:
    """Widths of the biases that coremltools gives to linear layers without one; equal large ones are one."""
    tensors = weight_tensors(keys)
    names = {tensor.name for tensor in tensors}
    widths = [
        tensor.shape[0]
        for tensor in tensors
        if tensor.role in ("matrix", "output") and tensor.name.replace(".weight", ".bias") not in names
    ]
    if keys.get("tie_word_embeddings"):
        widths.append(int(keys["vocab_size"]))
    large = {width for width in widths if width >= _SHARED}
    return [*(width for width in widths if width < _SHARED), *sorted(large)]


def _aligned(size: int) -> int:
    return size + -size % _BLOB
