"""TensorRT as a toolchain: the rule `tensorrt_toolchain`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

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
    complete_architecture,
    declare_calibration,
    declare_onnx_export,
    is_rounded,
    pass_bytes,
    weight_tensors,
)

_HERE = Path(__file__).parent
_FORMATS = ("tensorrt:fp16", "tensorrt:int8")
VERSION = "11.4.0.106"
"""What `requirements.lock` pins; an engine runs in no other TensorRT."""
GPUS = "/proc/driver/nvidia/gpus"
"""NVIDIA's driver lists the GPUs of a machine here."""
_CPUS = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
"""The kernel's name of a machine -> that of `@platforms//cpu`."""


@dataclass(frozen=True)
class TensorRtToolchainInfo(FixedPassToolchainInfo):
    """Builds engines. gpu_architecture: `sm_87`. gpus, cpu: of the machine that builds."""

    gpu_architecture: str = ""
    calibration_rows: int = 128
    gpus: int = 0
    cpu: str = ""

    def refusal(self, conversion: Conversion) -> str:
        """The machine that builds, and integers that would have to be rounded a second time."""
        reason = super().refusal(conversion)
        if not reason and conversion.format == "tensorrt:int8":
            reason = _second_rounding(conversion.model)
        return reason or self._no_gpu(conversion.platform)

    def footprint(self, conversion: Conversion) -> Footprint:
        """The weights as the graph holds them. What TensorRT adds was measured nowhere."""
        weights = _weight_bytes(conversion.model, 1 if conversion.format == "tensorrt:int8" else 2)
        runtime = pass_bytes(conversion)
        return Footprint(disk=weights, weights=weights, runtime=runtime, detail={"weights": weights})

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The export that toolchains share, its types, and the engine."""
        model, prefix, format_ = conversion.model, conversion.prefix, conversion.format
        export = declare_onnx_export(ctx, model, conversion.sequence_length, prefix)
        inputs = {"onnx": export, "model": model.weights}
        if format_ == "tensorrt:int8":
            inputs["calibration"] = declare_calibration(
                ctx,
                model,
                conversion.calibration,
                format_,
                sequence_length=conversion.sequence_length,
                rows=self.calibration_rows,
                prefix=prefix,
            )
        precision = format_.removeprefix("tensorrt:")
        typed, engine = (
            ctx.declare_tree(f"{prefix}onnx-{precision}"),
            ctx.declare_file(f"{prefix}model.engine"),
        )
        ctx.run(
            tool=PythonTool(_HERE / "type_tool.py", ("numpy", "onnx", "onnxruntime", "safetensors")),
            mnemonic="TensorRtTypes",
            inputs=inputs,
            outputs={"onnx": typed},
            params={"precision": precision},
            resources=Resources(ram=2 << 30),
            progress=f"typing {ctx.label.name} as {precision}",
        )
        ctx.run(
            tool=PythonTool(_HERE / "build_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="TensorRtBuild",
            inputs={"onnx": typed},
            outputs={"engine": engine},
            params={"gpu_architecture": self.gpu_architecture, "tensorrt": VERSION},
            resources=Resources(cpu=2, ram=4 << 30, gpu=1),
            determinism="none",
            progress=f"building {ctx.label.name} for {self.gpu_architecture}",
        )
        return DeviceBinaryInfo(engine, format_, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """TensorRT of the lock, where this machine is the device."""
        if self._no_gpu(platform) or (platform.runner is not None and platform.runner.kind != "local"):
            return None
        return PythonTool(_HERE / "device_tool.py", lock=Lock(_HERE / "requirements.lock"))

    def why_not_run(self, platform: PlatformInfo) -> str:
        """The GPU that is not there before anything else."""
        return self._no_gpu(platform) or super().why_not_run(platform)

    def _no_gpu(self, platform: PlatformInfo) -> str:
        if not self.gpus:
            return (
                "an engine is built on the NVIDIA GPU that it is for, "
                f"and the machine that builds has none (there is nothing in `{GPUS}`)"
            )
        if platform.cpu and platform.cpu != self.cpu:
            return f"an engine for {platform.cpu} is built on one, and the machine that builds is {self.cpu}"
        return ""


class TensorrtToolchain(Rule):
    """TensorRT: engines for NVIDIA GPUs, built on a GPU of the kind that they are for.

    `tensorrt:fp16` multiplies in float16 and computes all else in float32. `tensorrt:int8` multiplies
    integers where one operand is a weight: activations in steps that calibration data decides, weights with
    one scale a row. Which GPU it is and which TensorRT is in the key of an engine. Without an NVIDIA GPU in
    the machine that builds the toolchain refuses every model with that reason; a GPU that appears is noticed.
    """

    gpu_architecture: str = Field(pattern=r"^sm_[0-9]{2,3}$")
    """Of the device: `sm_87` is that of Jetson Orin, `sm_90` that of H100."""
    calibration_rows: int = Field(default=128, ge=1)
    """How many rows `tensorrt:int8` measures activations on."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Look for GPUs: a fact of the build, like a glob."""
        ctx.record_listing(GPUS)
        machine = os.uname().machine
        info = TensorRtToolchainInfo(
            "TensorRT",
            _FORMATS,
            gpu_architecture=self.gpu_architecture,
            calibration_rows=self.calibration_rows,
            gpus=len(os.listdir(GPUS)) if os.path.isdir(GPUS) else 0,
            cpu=_CPUS.get(machine, machine),
        )
        return [DefaultInfo(), info]


def _second_rounding(model: ModelInfo) -> str:
    """Why packed weights cannot be multiplied as they are."""
    quantization = model.quantization
    if not quantization:
        return ""
    if not quantization.get("symmetric", True):
        return "its weights are asymmetric, and TensorRT knows no zero points"
    if quantization["group_size"]:
        return (
            f"its weights have a scale for each {quantization['group_size']}, where integers need one a row"
        )
    return ""


def _weight_bytes(model: ModelInfo, size: int) -> int:
    """Matrices in `size` bytes a number; embeddings, and floats beside integers, in 2; vectors in 4."""
    keys = complete_architecture(model.architecture)
    total = 0
    for tensor in weight_tensors(keys):
        count, rows = tensor.parameters, tensor.shape[0]
        integers = size == 1 and is_rounded(model, tensor)
        if tensor.role == "vector" or len(tensor.shape) != 2:
            total += 4 * count
        elif tensor.role == "embedding":
            tied = keys["tie_word_embeddings"] and integers
            total += 2 * count + (count + 4 * rows if tied else 0)
        else:
            total += count + 4 * rows if integers else 2 * count
    return total
