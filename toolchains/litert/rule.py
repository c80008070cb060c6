"""The rule `litert_toolchain`."""

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
_BITS = {"litert:fp32": 32, "litert:int8": 8}
_TEXT = ("text_generation", "language_modeling")
_BIG_ENDIAN = ("s390x", "ppc", "ppc32", "mips64")
_WHEELS = {"x86_64": "", "aarch64": "aarch64-manylinux_2_28"}
"""CPUs for which the package index has LiteRT's runtime -> the platform of its wheels."""
_DEVICE_PYTHON = "3.11"
_LARGEST = (1 << 31) - (64 << 20)
"""Bytes of weights: a flatbuffer ends at 2 GiB."""
_GRAPH = {
    ("text", 32): (3_000, 8_200),
    ("text", 8): (3_000, 8_300),
    ("image", 32): (6_000, 6_350),
    ("image", 8): (6_000, 7_230),
}
"""Bytes of a file without weights and tables: of every model, and of each layer; see README.md."""
_LENGTH = 64
"""Tokens that the constants of a language model are predicted for."""
_RUNTIME_BYTES = 8 << 20


class LitertToolchain(Rule):
    """LiteRT: one `.tflite` file, the same for every device.

    `litert:fp32` takes any model. `litert:int8` keeps the codes of a symmetric 8-bit model with one scale a
    row, and rounds every matrix of a floating-point one to the nearest. Inputs of matrices are rounded to 8
    bits while it runs.
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Say what can be made; the actions are those of whoever converts a model."""
        return [DefaultInfo(), LitertToolchainInfo("litert", tuple(_BITS))]


@dataclass(frozen=True)
class LitertToolchainInfo(RuntimeToolchainInfo):
    """Makes `.tflite` files and runs them in LiteRT."""

    def refusal(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> str:
        """The format, the device, the task, the family, a second rounding, a file too large."""
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
                return "LiteRT's 8-bit weights are symmetric with one scale a row, and the model's are not"
        size = _weight_bytes(model, _BITS[format_])
        if size > _LARGEST:
            return f"a `.tflite` file holds at most 2 GiB, and the weights take {size} bytes"
        return ""

    def footprint(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> Footprint:
        """Weights to the byte, a tied matrix once; the graph as it was measured."""
        weights = _weight_bytes(model, _BITS[format_])
        graph = _graph_bytes(model, _BITS[format_])
        return Footprint(
            disk=weights + graph,
            weights=weights,
            runtime=graph + _RUNTIME_BYTES,
            detail={"weights": weights, "graph": graph},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """One action, which all platforms share."""
        model = conversion.model
        reason = self.refusal(model, conversion.format, conversion.platform)
        if reason:
            ctx.fail(f"the model cannot be had as {conversion.format}: {reason}")
        is_text = model.task in _TEXT
        binary = ctx.declare_file(f"{conversion.prefix}model.tflite")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="LitertConvert",
            inputs={"model": model.weights},
            outputs={"binary": binary},
            params={
                "bits": _BITS[conversion.format],
                "task": "language_model" if is_text else model.task,
                "sequence_length": conversion.sequence_length if is_text else 0,
            },
            resources=Resources(ram=2 << 30),
            progress=f"converting {ctx.label.name} to LiteRT",
        )
        return DeviceBinaryInfo(binary, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """LiteRT's interpreter out of a wheel, which there is for Linux on x86-64 and aarch64."""
        if platform.os != "linux" or platform.cpu not in _WHEELS:
            return None
        wheels = _WHEELS[platform.cpu]
        if platform.runner is not None and platform.runner.kind == "local":
            wheels = ""
        lock = Lock(_HERE / "runtime.lock", wheels, _DEVICE_PYTHON if wheels else "")
        return PythonTool(_HERE / "device_tool.py", lock=lock)


def _graph_bytes(model: ModelInfo, bits: int) -> int:
    """Of everything but weights: operators and, of a language model, tables of the mask and of angles."""
    keys = complete_architecture(model.architecture)
    base, layer = _GRAPH["text" if model.task in _TEXT else "image", bits]
    tables = 0
    if model.task in _TEXT:
        tables = 4 * _LENGTH * (_LENGTH + 2 * int(keys["head_dim"]))
    elif bits == 32:
        layer -= 16 * int(keys["hidden_size"])  # Norms are multiplied into the matrices behind them.
    return base + layer * int(keys["num_hidden_layers"]) + tables


def _weight_bytes(model: ModelInfo, bits: int) -> int:
    """Of all weights in the file."""
    total = 0
    # Of a classifier, `quantize` rounds the last matrix like the others.
    outer = model.task not in _TEXT or model.quantization.get("embeddings") != "float"
    for tensor in weight_tensors(model.architecture):
        is_matrix = tensor.role != "vector" and len(tensor.shape) == 2
        packed = bits == 8 and is_matrix and (outer or tensor.role == "matrix")
        total += tensor.parameters + 12 * tensor.shape[0] if packed else 4 * tensor.parameters
    return total
