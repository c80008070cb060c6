"""The rule `openvino_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    WeightTensor,
    complete_architecture,
    declare_onnx_export,
    device_lock,
    is_rounded,
    optional_vectors,
    pass_bytes,
    shares_heads,
    weight_tensors,
)

_HERE = Path(__file__).parent
_FORMATS = ("openvino:fp32", "openvino:int8", "openvino:int4")
_SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("linux", "windows"),
    "aarch64": ("linux", "macos"),
}
"""CPU -> the systems that OpenVINO is released for."""
_WHEELS = {"x86_64": "x86_64-manylinux_2_35", "aarch64": "aarch64-manylinux_2_35"}
"""CPU -> the platform of its wheels."""
_XML: Mapping[str, tuple[int, int, int]] = {"text": (15_811, 30_053, 3_183), "images": (16_975, 27_220, 0)}
"""Bytes of the graph: of any model (with constants), of each layer, of each layer whose heads share keys."""
_XML_INTEGERS, _XML_GROUPS, _XML_ZEROS = 980, 742, 1_075
"""Bytes of scaling one matrix: in any case, for several scales a row, for zero points."""
_XML_BIAS, _XML_HEAD_NORM = 667, 3_680
"""Bytes of adding one bias beyond those of any model of its kind, and of one norm of queries or keys."""
_RUNTIME_BYTES = 100 << 20
"""Peak of a process with a tiny model: 98 MiB, and activations."""


class OpenvinoToolchain(Rule):
    """Makes OpenVINO's two files, `model.xml` and `model.bin`, in a tree.

    `openvino:int8` and `openvino:int4` hold weights as integers, which are scaled where they are used;
    activations stay float32. Weights that are integers already are copied, not rounded again.
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Say what can be made; the actions are those of whoever converts a model."""
        return [DefaultInfo(), OpenvinoToolchainInfo("openvino", _FORMATS)]


@dataclass(frozen=True)
class OpenvinoToolchainInfo(FixedPassToolchainInfo):
    """OpenVINO, on the CPU."""

    def refusal(self, conversion: Conversion) -> str:
        """Other devices, and integers that the format could only hold by rounding them again."""
        model, format_, platform = conversion.model, conversion.format, conversion.platform
        reason = super().refusal(conversion)
        if reason:
            return reason
        if platform.os not in _SYSTEMS.get(platform.cpu, ()):
            return f"there is no OpenVINO for `{platform.cpu}` with `{platform.os}`"
        if model.quantization and format_ != "openvino:fp32":
            bits = int(model.quantization["bits"])
            if (bits == 8) is not (format_ == "openvino:int8"):
                return f"{bits}-bit weights are not `{format_}`, which would round them again"
        return ""

    def footprint(self, conversion: Conversion) -> Footprint:
        """What every tensor takes, and the graph around them: measured, see README.md."""
        model, format_ = conversion.model, conversion.format
        parts = {
            "weights": sum(_bytes(t, model, format_) for t in weight_tensors(model.architecture)),
            "graph": _graph_bytes(model, format_),
        }
        disk = sum(parts.values())
        # While it is compiled, the files and what the kernels make of them are both in memory: 2.3 times.
        runtime = _RUNTIME_BYTES + pass_bytes(conversion)
        return Footprint(disk=disk, weights=2 * disk, runtime=runtime, detail=parts)

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The export that other toolchains share, and its conversion."""
        model, format_, prefix = conversion.model, conversion.format, conversion.prefix
        variant = format_.partition(":")[2]
        inputs = {"onnx": declare_onnx_export(ctx, model, conversion.sequence_length, prefix)}
        if variant != "fp32":
            inputs["model"] = model.weights
        binary = ctx.declare_tree(f"{prefix}openvino")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="OpenvinoConvert",
            inputs=inputs,
            outputs={"openvino": binary},
            params={"variant": variant},
            resources=Resources(ram=2 << 30),
            progress=f"converting {ctx.label.name} to {format_}",
        )
        return DeviceBinaryInfo(binary, format_, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """OpenVINO from its wheel, on Linux."""
        lock = device_lock(_HERE / "requirements.lock", platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None


def _bytes(tensor: WeightTensor, model: ModelInfo, format_: str) -> int:
    """Codes, float32 scales and, for asymmetric weights, zero points."""
    if format_ == "openvino:fp32" or not is_rounded(model, tensor):
        return 4 * tensor.parameters
    rows, columns = tensor.shape
    bits = 8 if format_ == "openvino:int8" else 4
    scales = rows * (columns // _group(columns, model, format_))
    zeros = 0 if model.quantization.get("symmetric", True) else scales
    return (rows * columns * bits + zeros * bits + 7) // 8 + 4 * scales


def _group(columns: int, model: ModelInfo, format_: str) -> int:
    """Weights of a row that share a scale."""
    if model.quantization:
        return int(model.quantization["group_size"]) or columns
    if format_ == "openvino:int4":
        return next((size for size in (32, 16) if columns % size == 0), columns)
    return columns


def _graph_bytes(model: ModelInfo, format_: str) -> int:
    keys = complete_architecture(model.architecture)
    base, layer, shared = _XML["text" if model.is_text else "images"]
    total = base + (layer + shared * shares_heads(keys)) * int(keys["num_hidden_layers"])
    for tensor in weight_tensors(keys) if format_ != "openvino:fp32" else ():
        if is_rounded(model, tensor):
            grouped = _group(tensor.shape[1], model, format_) < tensor.shape[1]
            asymmetric = not model.quantization.get("symmetric", True)
            total += _XML_INTEGERS + _XML_GROUPS * grouped + _XML_ZEROS * asymmetric
    biases, norms = optional_vectors(keys)
    return total + _XML_BIAS * biases + _XML_HEAD_NORM * norms
