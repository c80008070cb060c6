"""The rule `litert_toolchain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    byte_order_refusal,
    complete_architecture,
    device_lock,
    is_rounded,
    optional_vectors,
    pass_bytes,
    pass_params,
    row_integers_refusal,
    table_bytes,
    weight_tensors,
)

_HERE = Path(__file__).parent
_BITS = {"litert:fp32": 32, "litert:int8": 8}
_WHEELS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
"""CPUs for which there are wheels of LiteRT's runtime -> their platform."""
_LARGEST = (1 << 31) - (64 << 20)
"""Bytes of weights: a flatbuffer ends at 2 GiB."""
_GRAPH = {
    ("text", 32): (3_000, 8_200),
    ("text", 8): (3_000, 8_300),
    ("image", 32): (6_000, 6_350),
    ("image", 8): (6_000, 7_230),
}
"""Bytes of a file without weights and tables: of every model, and of each layer; see README.md."""
_BIAS, _HEAD_NORM = 65, 930
"""Of a language model: more bytes for each bias, and for each norm of queries or keys."""
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
class LitertToolchainInfo(FixedPassToolchainInfo):
    """Makes `.tflite` files and runs them in LiteRT."""

    def refusal(self, conversion: Conversion) -> str:
        """A big-endian device, a second rounding, a file too large."""
        model, bits = conversion.model, _BITS.get(conversion.format, 0)
        reason = super().refusal(conversion) or byte_order_refusal(conversion.platform)
        if not reason and bits == 8:
            reason = row_integers_refusal(model)
        if reason:
            return reason
        size = _weight_bytes(model, bits)
        if size > _LARGEST:
            return f"a `.tflite` file holds at most 2 GiB, and the weights take {size} bytes"
        return ""

    def footprint(self, conversion: Conversion) -> Footprint:
        """Weights to the byte, a tied matrix once; the graph as it was measured."""
        weights = _weight_bytes(conversion.model, _BITS[conversion.format])
        graph = _graph_bytes(conversion)
        return Footprint(
            disk=weights + graph,
            weights=weights,
            runtime=graph + _RUNTIME_BYTES + pass_bytes(conversion),
            detail={"weights": weights, "graph": graph},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """One action, which all platforms share."""
        binary = ctx.declare_file(f"{conversion.prefix}model.tflite")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="LitertConvert",
            inputs={"model": conversion.model.weights},
            outputs={"binary": binary},
            params={"bits": _BITS[conversion.format], **pass_params(conversion)},
            resources=Resources(ram=2 << 30),
            progress=f"converting {ctx.label.name} to LiteRT",
        )
        return DeviceBinaryInfo(binary, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """LiteRT's interpreter out of a wheel, which there is for Linux on x86-64 and aarch64."""
        lock = device_lock(_HERE / "runtime.lock", platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None


def _graph_bytes(conversion: Conversion) -> int:
    """Of everything but weights: operators and, of a language model, tables of the mask and of angles."""
    model, bits = conversion.model, _BITS[conversion.format]
    keys = complete_architecture(model.architecture)
    base, layer = _GRAPH["text" if model.is_text else "image", bits]
    if model.is_text:
        biases, norms = optional_vectors(keys)
        base += _BIAS * biases + _HEAD_NORM * norms
    elif bits == 32:
        layer -= 16 * int(keys["hidden_size"])  # Norms are multiplied into the matrices behind them.
    return base + layer * int(keys["num_hidden_layers"]) + table_bytes(conversion)


def _weight_bytes(model: ModelInfo, bits: int) -> int:
    """Of all weights in the file."""
    total = 0
    for tensor in weight_tensors(model.architecture):
        packed = bits == 8 and is_rounded(model, tensor)
        total += tensor.parameters + 12 * tensor.shape[0] if packed else 4 * tensor.parameters
    return total
