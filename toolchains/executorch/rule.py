"""The rule `executorch_toolchain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelbuild.api import (
    MODEL_TYPES,
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
_LOCK = Lock(_HERE / "requirements.lock")
_BITS = {"executorch:fp32": 32, "executorch:int8": 8}
_TEXT = ("text_generation", "language_modeling")
_BIG_ENDIAN = ("s390x", "ppc", "ppc32", "mips64")
_PROGRAM = {
    ("text", 32): (10_700, 14_600),
    ("text", 8): (12_000, 17_500),
    ("image", 32): (8_200, 12_200),
    ("image", 8): (8_600, 15_000),
}
"""Bytes of a file without weights: of every model, and of each layer; measured, see README.md."""
_SHARED_HEADS = 1_800
"""More bytes of a layer whose heads share keys and values."""
_RUNTIME_BYTES = 8 << 20


class ExecutorchToolchain(Rule):
    """ExecuTorch with XNNPACK: one `.pte` file, the same for every device with a CPU that XNNPACK knows.

    `executorch:fp32` takes any model. `executorch:int8` keeps the codes of a symmetric 8-bit model with one
    scale a row, and rounds every matrix of a floating-point one to the nearest; activations are rounded while
    it runs, each row for itself.
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Say what can be made; the actions are those of whoever converts a model."""
        return [DefaultInfo(), ExecutorchToolchainInfo("executorch", tuple(_BITS))]


@dataclass(frozen=True)
class ExecutorchToolchainInfo(RuntimeToolchainInfo):
    """Makes `.pte` files and runs them in ExecuTorch."""

    def refusal(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> str:
        """The format, the device, the task, the family, a second rounding."""
        if format_ not in _BITS:
            return f"this toolchain makes {', '.join(_BITS)}"
        if platform.cpu in _BIG_ENDIAN:
            return f"the file would be little-endian, and `{platform.cpu}` is not"
        if model.task not in (*_TEXT, "image_classification"):
            return f"this toolchain takes language models and image classifiers, not one for {model.task}"
        family = model.architecture.get("model_type")
        if family not in MODEL_TYPES:
            return f"a model of type `{family}` is not known here; {', '.join(sorted(MODEL_TYPES))} are"
        stored = model.quantization
        if _BITS[format_] == 8 and stored:
            if stored.get("bits") != 8:
                return f"8 bits would round its {stored.get('bits')}-bit weights a second time"
            if stored.get("group_size") or not stored.get("symmetric", True):
                return "XNNPACK's 8-bit weights are symmetric with one scale a row, and the model's are not"
        return ""

    def footprint(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> Footprint:
        """Weights to the byte, a tied matrix twice: XNNPACK keeps its own copy. The program as measured."""
        weights = _weight_bytes(model, _BITS[format_])
        program = _program_bytes(model, _BITS[format_])
        return Footprint(
            disk=weights + program,
            weights=weights,
            runtime=program + _RUNTIME_BYTES,
            detail={"weights": weights, "program": program},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """One action, which all platforms share."""
        model = conversion.model
        reason = self.refusal(model, conversion.format, conversion.platform)
        if reason:
            ctx.fail(f"the model cannot be had as {conversion.format}: {reason}")
        is_text = model.task in _TEXT
        binary = ctx.declare_file(f"{conversion.prefix}model.pte")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=_LOCK),
            mnemonic="ExecutorchConvert",
            inputs={"model": model.weights},
            outputs={"binary": binary},
            params={
                "bits": _BITS[conversion.format],
                "task": "language_model" if is_text else model.task,
                "sequence_length": conversion.sequence_length if is_text else 0,
            },
            resources=Resources(ram=2 << 30),
            progress=f"exporting {ctx.label.name} to ExecuTorch",
        )
        return DeviceBinaryInfo(binary, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """ExecuTorch's Python runtime, which comes with the exporter; it is called on this machine only."""
        if platform.os != "linux" or platform.cpu != "x86_64":
            return None
        return PythonTool(_HERE / "device_tool.py", lock=_LOCK)


def _program_bytes(model: ModelInfo, bits: int) -> int:
    """Of everything but weights."""
    keys = complete_architecture(model.architecture)
    base, layer = _PROGRAM["text" if model.task in _TEXT else "image", bits]
    if keys.get("num_key_value_heads", keys["num_attention_heads"]) != keys["num_attention_heads"]:
        layer += _SHARED_HEADS
    return base + layer * int(keys["num_hidden_layers"])


def _weight_bytes(model: ModelInfo, bits: int) -> int:
    """Of all weights in the file."""
    total = 0
    keys = complete_architecture(model.architecture)
    # Of a classifier, `quantize` rounds the last matrix like the others.
    outer = model.task not in _TEXT or model.quantization.get("embeddings") != "float"
    for tensor in weight_tensors(keys):
        is_matrix = tensor.role != "vector" and len(tensor.shape) == 2
        packed = bits == 8 and is_matrix and (outer or tensor.role == "matrix")
        each = tensor.parameters + 4 * tensor.shape[0] if packed else 4 * tensor.parameters
        total += 2 * each if tensor.role == "embedding" and keys.get("tie_word_embeddings") else each
    return total
