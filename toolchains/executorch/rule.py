"""The rule `executorch_toolchain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    WeightTensor,
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
    ("own", 32): (11_392, 14_080),
    ("own", 8): (12_416, 17_152),
    ("shared", 32): (11_136, 16_512),
    ("shared", 8): (12_288, 19_584),
    ("image", 32): (7_784, 12_032),
    ("image", 8): (8_296, 14_464),
}
"""Bytes of a file without weights: of every model, and of each layer; measured, see README.md.

Of language models whose heads have keys and values of their `own` or `shared` ones, and of classifiers.
"""
_BIAS = {32: 262, 8: 280}
"""Bits -> bytes of naming and adding one bias beyond those of any model of its kind."""
_HEAD_NORM = 1_500
"""Bytes of one norm of queries or keys."""
_SEGMENT, _CONSTANT = 128, 16
"""What constants of XNNPACK are aligned to, and those of ExecuTorch: norms, tokens, positions."""
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
        stored = list(_stored(model, bits))
        weights = sum(size for size, _ in stored)
        program = _program_bytes(model, bits) + sum(-size % alignment for size, alignment in stored)
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
    kind = "image" if not model.is_text else "shared" if shares_heads(keys) else "own"
    base, layer = _PROGRAM[kind, bits]
    biases, norms = optional_vectors(keys)
    return base + layer * int(keys["num_hidden_layers"]) + _BIAS[bits] * biases + _HEAD_NORM * norms


def _stored(model: ModelInfo, bits: int) -> Iterator[tuple[int, int]]:
    """Bytes of each array of weights in the file, and what it is aligned to."""
    keys = complete_architecture(model.architecture)
    for tensor in weight_tensors(keys):
        packed = bits == 8 and is_rounded(model, tensor)
        sizes = (tensor.parameters, 4 * tensor.shape[0]) if packed else (4 * tensor.parameters,)
        for alignment in _alignments(tensor, keys):
            yield from ((size, alignment) for size in sizes)


def _alignments(tensor: WeightTensor, keys: Mapping[str, Any]) -> tuple[int, ...]:
    """Of each place where a weight is stored: XNNPACK has matrices and what is added to their products."""
    if tensor.role == "embedding" and "vocab_size" in keys:
        return (_CONSTANT, _SEGMENT) if keys["tie_word_embeddings"] else (_CONSTANT,)
    added = tensor.name.endswith(".bias") and "norm" not in tensor.name
    return (_SEGMENT,) if added or tensor.role != "vector" else (_CONSTANT,)
