"""TensorRT as a toolchain: the rule `tensorrt_toolchain`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

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
    declare_calibration,
    declare_onnx_export,
    weight_tensors,
)

_HERE = Path(__file__).parent
_TEXT = ("text_generation", "language_modeling")
_FORMATS = ("tensorrt:fp16", "tensorrt:int8")
VERSION = "11.4.0.106"
"""What `requirements.lock` pins; an engine runs in no other TensorRT."""
GPUS = "/proc/driver/nvidia/gpus"
"""NVIDIA's driver lists the GPUs of a machine here."""
_CPUS = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
"""The kernel's name of a machine -> that of `@platforms//cpu`."""
_TOKENS = 64
"""The length of a pass that sizes are told for: the default of `device_binary`."""


@dataclass(frozen=True)
class TensorRtToolchainInfo(RuntimeToolchainInfo):
    """Builds engines. gpu_architecture: `sm_87`. gpus, cpu: of the machine that builds."""

    gpu_architecture: str = ""
    calibration_rows: int = 128
    gpus: int = 0
    cpu: str = ""

    def refusal(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> str:
        """The machine that builds, the task, and integers that would have to be rounded a second time."""
        if format_ not in self.formats:
            return f"this toolchain makes {', '.join(self.formats)}"
        if model.task not in (*_TEXT, "image_classification"):
            return f"a model for {model.task} cannot be exported to ONNX"
        try:
            weight_tensors(model.architecture)
        except AnalysisError as error:
            return error.message
        reason = _second_rounding(model) if format_ == "tensorrt:int8" else ""
        return reason or self._no_gpu(platform)

    def footprint(self, model: ModelInfo, format_: str, platform: PlatformInfo) -> Footprint:
        """The weights as the graph holds them. What TensorRT adds was measured nowhere."""
        keys = complete_architecture(model.architecture)
        weights = _weight_bytes(keys, 1 if format_ == "tensorrt:int8" else 2)
        return Footprint(
            disk=weights, weights=weights, runtime=_pass_bytes(keys), detail={"weights": weights}
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The export that toolchains share, its types, and the engine."""
        model, prefix, format_ = conversion.model, conversion.prefix, conversion.format
        reason = self.refusal(model, format_, conversion.platform)
        if reason:
            ctx.fail(f"the model cannot be had as {format_}: {reason}")
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
        return self._no_gpu(platform) or RuntimeToolchainInfo.why_not_run(self, platform)

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


def _weight_bytes(keys: Mapping[str, Any], size: int) -> int:
    """Matrices in `size` bytes a number, the embedding in 2, vectors in 4."""
    tensors = weight_tensors(keys)
    total = 0
    for tensor in tensors:
        count, role = tensor.parameters, tensor.role
        if role == "vector" or (role == "embedding" and keys["model_type"] == "vit"):
            total += 4 * count
        elif role == "embedding":
            tied = keys["tie_word_embeddings"] and size == 1
            total += 2 * count + (count + 4 * tensor.shape[0] if tied else 0)
        else:
            total += size * count + (4 * tensor.shape[0] if size == 1 else 0)
    return total


def _pass_bytes(keys: Mapping[str, Any]) -> int:
    """What one pass takes at most: attention scores, two wide rows and some narrow ones a token, float32."""
    hidden, inner = int(keys["hidden_size"]), int(keys["intermediate_size"])
    tokens = _TOKENS
    if keys["model_type"] == "vit":
        sides = [
            each if isinstance(each, int) else each[0] for each in (keys["image_size"], keys["patch_size"])
        ]
        tokens = (sides[0] // sides[1]) ** 2 + 1
    widest = max(inner, int(keys.get("vocab_size") or 0))
    return 4 * tokens * (int(keys["num_attention_heads"]) * tokens + 2 * widest + 6 * hidden)
