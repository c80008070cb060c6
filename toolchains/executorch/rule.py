"""The rule `executorch_toolchain`."""

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
    is_rounded,
    optional_vectors,
    pass_bytes,
    pass_params,
    row_integers_refusal,
    shares_heads,
    weight_tensors,
)

_HERE = Path(__file__).parent
_LOCK = Lock(_HERE / "requirements.lock")
_BITS = {"executorch:fp32": 32, "executorch:int8": 8}
_PROGRAM = {
    ("text", 32): (10_700, 14_600),
    ("text", 8): (12_000, 17_500),
    ("image", 32): (8_200, 12_200),
    ("image", 8): (8_600, 15_000),
}
"""Bytes of a file without weights: of every model, and of each layer; measured, see README.md."""
_SHARED_HEADS = 1_800
"""More bytes of a layer whose heads share keys and values."""
_BIAS = {32: 283, 8: 247}
"""Bits -> bytes of naming and adding one bias beyond those of any model of its kind."""
_HEAD_NORM = 1_500
"""Bytes of one norm of queries or keys."""
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
class ExecutorchToolchainInfo(FixedPassToolchainInfo):
    """Makes `.pte` files and runs them in ExecuTorch."""

    def refusal(self, conversion: Conversion) -> str:
        """A big-endian device, and a second rounding."""
        reason = super().refusal(conversion) or byte_order_refusal(conversion.platform)
        if not reason and _BITS[conversion.format] == 8:
            reason = row_integers_refusal(conversion.model)
        return reason

    def footprint(self, conversion: Conversion) -> Footprint:
        """Weights to the byte, a tied matrix twice: XNNPACK keeps its own copy. The program as measured."""
        model, bits = conversion.model, _BITS[conversion.format]
        weights, program = _weight_bytes(model, bits), _program_bytes(model, bits)
        return Footprint(
            disk=weights + program,
            weights=weights,
            runtime=program + _RUNTIME_BYTES + pass_bytes(conversion),
            detail={"weights": weights, "program": program},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """One action, which all platforms share."""
        binary = ctx.declare_file(f"{conversion.prefix}model.pte")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=_LOCK),
            mnemonic="ExecutorchConvert",
            inputs={"model": conversion.model.weights},
            outputs={"binary": binary},
            params={"bits": _BITS[conversion.format], **pass_params(conversion)},
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
    base, layer = _PROGRAM["text" if model.is_text else "image", bits]
    layer += _SHARED_HEADS * shares_heads(keys)
    biases, norms = optional_vectors(keys)
    return base + layer * int(keys["num_hidden_layers"]) + _BIAS[bits] * biases + _HEAD_NORM * norms


def _weight_bytes(model: ModelInfo, bits: int) -> int:
    """Of all weights in the file."""
    total = 0
    keys = complete_architecture(model.architecture)
    for tensor in weight_tensors(keys):
        packed = bits == 8 and is_rounded(model, tensor)
        each = tensor.parameters + 4 * tensor.shape[0] if packed else 4 * tensor.parameters
        total += 2 * each if tensor.role == "embedding" and keys.get("tie_word_embeddings") else each
    return total
