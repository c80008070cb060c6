"""Core ML as a toolchain: the rule `coreml_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    complete_architecture,
    weight_tensors,
)

_HERE = Path(__file__).parent
_TEXT = ("text_generation", "language_modeling")
_FAMILIES = ("llama", "vit")
_SYSTEMS = ("ios", "macos")
_SIZES = {"coreml:fp16": 2, "coreml:fp32": 4}
"""Format -> bytes of a number."""
_TOKENS = 64
"""The length of a pass that sizes are told for: the default of `device_binary`."""
_BLOB = 64
"""What arrays are aligned to, and the metadata in front of each."""
_MANIFEST_BYTES = 618
_PROGRAM_BYTES = {
    ("llama", "coreml:fp32"): (3325, 13708),
    ("llama", "coreml:fp16"): (4023, 15807),
    ("vit", "coreml:fp32"): (5389, 8905),
    ("vit", "coreml:fp16"): (6412, 9990),
}
"""The program without its weights: what a model has anyway, and for each of its layers; counted."""
_GROUPED_BYTES = 880
"""What a layer has besides when heads share keys; counted."""

Target = Literal["iOS15", "iOS16", "iOS17", "iOS18"]


@dataclass(frozen=True)
class CoreMlToolchainInfo(RuntimeToolchainInfo):
    """Makes `.mlpackage` trees. target: the oldest system that may load them."""

    target: Target = "iOS16"

    def refusal(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> str:
        """The system, the task and the family."""
        if format_ not in self.formats:
            return f"this toolchain makes {', '.join(self.formats)}"
        if platform.os not in _SYSTEMS:
            return f"Core ML is part of Apple's systems, and `{platform.label}` is none of them"
        if model.task not in (*_TEXT, "image_classification"):
            return f"Core ML is not tried with models for {model.task}"
        family = model.architecture.get("model_type")
        if family not in _FAMILIES:
            return f"Core ML is not tried with a model of type `{family}`, only with {', '.join(_FAMILIES)}"
        try:
            weight_tensors(model.architecture)
        except AnalysisError as error:
            return error.message
        return ""

    def footprint(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> Footprint:
        """The weights for passes of 64 tokens to the byte, the program about. Memory: weights and one pass.

        What Core ML itself takes is not known here.
        """
        keys = complete_architecture(model.architecture)
        weights = _weight_bytes(keys, _SIZES[format_])
        base, each = _PROGRAM_BYTES[keys["model_type"], format_]
        if keys.get("num_key_value_heads") not in (None, keys["num_attention_heads"]):
            each += _GROUPED_BYTES
        program = base + each * int(keys["num_hidden_layers"])
        return Footprint(
            disk=weights + program + _MANIFEST_BYTES,
            weights=weights,
            runtime=_pass_bytes(keys, _SIZES[format_]),
            detail={"weights": weights, "program": program, "manifest": _MANIFEST_BYTES},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """One action, with nothing of the device in its key."""
        model = conversion.model
        reason = self.refusal(model, conversion.format, conversion.platform)
        if reason:
            ctx.fail(f"the model cannot be had as {conversion.format}: {reason}")
        package = ctx.declare_tree(f"{conversion.prefix}model.mlpackage")
        params: dict[str, object] = {
            "task": "image_classification",
            "precision": conversion.format.removeprefix("coreml:"),
            "target": self.target,
        }
        if model.task in _TEXT:
            params |= {"task": "language_model", "sequence_length": conversion.sequence_length}
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="CoreMlConvert",
            inputs={"model": model.weights},
            outputs={"package": package},
            params=params,
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


def _weight_bytes(keys: Mapping[str, Any], size: int) -> int:
    """Of `weight.bin`: a header, and each array with its metadata; arrays of a few numbers lie elsewhere."""
    counts = [tensor.parameters for tensor in weight_tensors(keys)]
    if keys["model_type"] != "vit":
        # The causal mask, cosines and sines, and a zero bias for each width.
        counts += [_TOKENS * _TOKENS, *[_TOKENS * int(keys["head_dim"])] * 2]
        heads = (keys["num_attention_heads"], keys["num_key_value_heads"])
        widths = {int(number) * int(keys["head_dim"]) for number in heads}
        counts += {*widths, keys["hidden_size"], keys["intermediate_size"], keys["vocab_size"]}
    return _BLOB + sum(_BLOB + _aligned(count * size) for count in counts if count >= 10)


def _aligned(size: int) -> int:
    return size + -size % _BLOB


def _pass_bytes(keys: Mapping[str, Any], size: int) -> int:
    """What one pass takes at most: attention scores, two wide rows and some narrow ones a token."""
    hidden, inner = int(keys["hidden_size"]), int(keys["intermediate_size"])
    tokens = _TOKENS
    if keys["model_type"] == "vit":
        sides = [
            each if isinstance(each, int) else each[0] for each in (keys["image_size"], keys["patch_size"])
        ]
        tokens = (sides[0] // sides[1]) ** 2 + 1
    widest = max(inner, int(keys.get("vocab_size") or 0))
    return size * tokens * (int(keys["num_attention_heads"]) * tokens + 2 * widest + 6 * hidden)
