"""NumpyToolchainInfo: what plain NumPy makes, for which models and devices, and how large it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelbuild.api import (
    Context,
    Conversion,
    DeviceBinaryInfo,
    Footprint,
    Lock,
    ModelInfo,
    PlatformInfo,
    PythonTool,
    Resources,
    RuntimeToolchainInfo,
    WeightTensor,
    device_lock,
    weight_tensors,
)
from modelbuild_numpy.layout import CODES, EPSILON, HEADS, SCALES, archive_bytes

FORMATS = ("npz:fp32", "npz:int8")
_HERE = Path(__file__).parent
_WHEELS: Mapping[str, str] = {"aarch64": "aarch64-manylinux_2_28", "x86_64": "x86_64-manylinux_2_28"}
"""CPU -> the platform of NumPy's wheels for it."""
_RUNTIME_BYTES = 40 << 20
"""Resident memory of Python with NumPy and its BLAS, measured on x86-64 with Python 3.11 and NumPy 2.4."""


@dataclass(frozen=True)
class NumpyToolchainInfo(RuntimeToolchainInfo):
    """Makes `.npz` archives of vision transformers, and runs them with NumPy and nothing else."""

    def refusal(self, conversion: Conversion) -> str:
        """Another task, another network, and codes that it has no place for."""
        model = conversion.model
        if model.task != "image_classification":
            return f"it classifies images, and the model is for {model.task}"
        kind = model.architecture.get("model_type")
        if kind != "vit":
            return f"it computes vision transformers (`vit`), and the model is a `{kind}`"
        activation = model.architecture.get("hidden_act", "gelu")
        if activation != "gelu":
            return f"it computes the activation `gelu`, and the model has `{activation}`"
        if conversion.format == "npz:int8" and not model.quantization.get("symmetric", True):
            return "the model's codes have zero points, for which `npz:int8` has no place"
        return ""

    def footprint(self, conversion: Conversion) -> Footprint:
        """The archive to the byte. In memory its arrays, and the largest matrix as floats while in use."""
        model, format_ = conversion.model, conversion.format
        arrays = dict(stored(model, format_))
        numbers = sum(arrays.values())
        matrices = [each.parameters for each in weight_tensors(model.architecture) if is_matrix(each)]
        return Footprint(
            disk=archive_bytes(arrays.items()),
            weights=numbers,
            runtime=_RUNTIME_BYTES + (4 * max(matrices) if format_ == "npz:int8" else 0),
            detail={"numbers": numbers, "archive": archive_bytes(arrays.items()) - numbers},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """One action. Nothing of the platform is in its parameters: all devices share the result."""
        archive = ctx.declare_file(f"{conversion.prefix}model.npz")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "convert.lock")),
            mnemonic="NumpyConvert",
            inputs={"model": conversion.model.weights},
            outputs={"archive": archive},
            params={"format": conversion.format},
            resources=Resources(ram=256 << 20),
            progress=f"converting {ctx.label.name} to {conversion.format}",
        )
        return DeviceBinaryInfo(archive, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """NumPy from its wheel: this machine's own, or that of another CPU for an emulator or a device."""
        lock = device_lock(_HERE / "runtime.lock", platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None


def is_matrix(tensor: WeightTensor) -> bool:
    """Whether `npz:int8` holds it as codes."""
    return tensor.role in ("matrix", "output")


def stored(model: ModelInfo, format_: str) -> Iterator[tuple[str, int]]:
    """Name and bytes of each array in the archive of a model."""
    yield HEADS, 8
    yield EPSILON, 8
    group = int(model.quantization.get("group_size", 0))
    for tensor in weight_tensors(model.architecture):
        if format_ == "npz:int8" and is_matrix(tensor):
            rows, columns = tensor.shape
            yield tensor.name + CODES, rows * columns
            yield tensor.name + SCALES, 4 * rows * (columns // (group or columns))
        else:
            yield tensor.name, 4 * tensor.parameters
