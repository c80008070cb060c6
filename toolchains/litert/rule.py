"""The rule `litert_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    byte_order_refusal,
    complete_architecture,
    device_lock,
    is_rounded,
    optional_vectors,
    pass_bytes,
    pass_params,
    row_integers_refusal,
    shares_heads,
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
    ("text", "own", 32): (3_848, 7_296),
    ("text", "own", 8): (3_944, 7_464),
    ("text", "shared", 32): (4_212, 7_840),
    ("text", "shared", 8): (4_312, 8_008),
    ("text", "single", 32): (3_492, 6_240),
    ("text", "single", 8): (3_592, 6_408),
    ("image", "own", 32): (6_000, 6_350),
    ("image", "own", 8): (6_000, 7_230),
    ("image", "single", 32): (5_508, 5_058),
    ("image", "single", 8): (5_585, 6_045),
}
"""Bytes of a file without weights and tables: of every model, and of each layer; see README.md.

The converter turns nothing over where there is a single head.
"""
_BIAS, _HEAD_NORM = 65, 995
"""Bytes for each bias that not every model of its kind has, and for each norm of queries or keys."""
_NORM = 190
"""Of multiplying a classifier's numbers by a norm, and of adding to them."""
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
        """A big-endian device, a second rounding, a head of keys for all of queries, a file too large."""
        model, bits = conversion.model, _BITS.get(conversion.format, 0)
        reason = super().refusal(conversion) or byte_order_refusal(conversion.platform)
        if not reason and bits == 8:
            reason = row_integers_refusal(model)
        if reason:
            return reason
        keys = complete_architecture(model.architecture)
        if shares_heads(keys) and keys["num_key_value_heads"] == 1:
            return "LiteRT's converter makes a wrong graph of heads that all share one of keys and values"
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
    base, layer = _GRAPH["text" if model.is_text else "image", _heads(keys), bits]
    biases, norms = optional_vectors(keys)
    base += _BIAS * biases + _HEAD_NORM * norms
    if not model.is_text and bits == 32:
        layer -= 16 * int(keys["hidden_size"])  # Norms are multiplied into the matrices behind them.
        if biases:  # But into those without a bias, which are three of each layer.
            layer += 8 * int(keys["hidden_size"]) + _NORM + 3 * _BIAS
    return base + layer * int(keys["num_hidden_layers"]) + table_bytes(conversion)


def _heads(keys: Mapping[str, Any]) -> str:
    """Whether heads have keys and values of their `own` or `shared` ones; `single`: there is one head."""
    if keys["num_attention_heads"] == 1:
        return "single"
    return "shared" if shares_heads(keys) else "own"


def _weight_bytes(model: ModelInfo, bits: int) -> int:
    """Of all weights in the file."""
    total = 0
    for tensor in weight_tensors(model.architecture):
        packed = bits == 8 and is_rounded(model, tensor)
        total += tensor.parameters + 12 * tensor.shape[0] if packed else 4 * tensor.parameters
    return total
