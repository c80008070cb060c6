"""The rule `onnx`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from modelbuild.api import (
    TRANSFORMERS_PRELOAD,
    Context,
    DatasetInfo,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    ModelInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    RunInfo,
)

_BLOCKED_OPSET = 21
"""The first whose DequantizeLinear has a scale for each group of a row; onnx_export.BLOCKED_OPSET."""
_TOOLS = {"image_classification": "tool.py"}
_DISTRIBUTIONS = ("torch", "transformers", "safetensors", "numpy", "onnx", "onnxscript", "onnxruntime")


class Onnx(Rule):
    """Exports `model` to one ONNX file for ONNX Runtime and whatever else reads ONNX.

    8-bit weights stay the integers that `quantize` chose, each with a DequantizeLinear: the file is as small
    as the checkpoint, and holds the same codes bit for bit. The action runs the file in ONNX Runtime and
    compares it with torch; a difference that rounding does not explain fails it. Nothing of this machine is
    in the file.

    `modelbuild run` names what an image shows: give the number of an image of `examples`, or a text file of
    numbers from 0 to 1.
    """

    model: Dep[ModelInfo]
    """An image classifier, in floating point or 8-bit."""
    opset: int = Field(default=18, ge=18, le=23)
    """Version of ONNX's operators. Groups within a row (`group_size`) need 21."""
    dynamic_batch: bool = True
    """Whether the file takes any number of images, rather than one."""
    examples: Dep[DatasetInfo] | None = None
    """Its `eval` images are what `modelbuild run` knows by number."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Check what ONNX can hold and declare the export."""
        info = self.model.info
        if info.task not in _TOOLS:
            ctx.fail(
                f"`{self.model.label}` is a model for `{info.task}`, which `onnx` does not export yet",
                hint='a `device_binary` with format = "onnx:fp32" takes language models',
            )
        self._check_quantization(ctx, info)
        if self.examples is not None and "eval" not in self.examples.info.splits:
            ctx.fail(f"`{self.examples.label}` has no split `eval`")
        file = ctx.declare_file("model.onnx")
        here = Path(__file__)
        ctx.run(
            tool=PythonTool(here.with_name(_TOOLS[info.task]), _DISTRIBUTIONS, TRANSFORMERS_PRELOAD),
            mnemonic="Onnx",
            inputs={"model": info.weights},
            outputs={"onnx": file},
            params={"opset": self.opset, "dynamic_batch": self.dynamic_batch},
            resources=Resources(ram=1 << 30),
            progress=f"exporting {self.name} to ONNX",
        )
        run_inputs = {"onnx": file}
        if self.examples is not None:
            run_inputs["dataset"] = self.examples.info.directory
        run_tool = PythonTool(here.with_name("run_tool.py"), ("numpy", "onnxruntime"))
        return [
            DefaultInfo((file,)),
            DeviceBinaryInfo(binary=file, format="onnx", runtime="onnxruntime"),
            RunInfo(run_tool, run_inputs),
        ]

    def _check_quantization(self, ctx: Context, info: ModelInfo) -> None:
        bits = info.quantization.get("bits")
        if bits not in (None, 8):
            ctx.fail(f"`{self.model.label}` has {bits}-bit weights; `onnx` takes 8-bit ones")
        if info.quantization.get("group_size") and self.opset < _BLOCKED_OPSET:
            ctx.fail(
                f"`{self.model.label}` has several scales a row, which opset {self.opset} cannot hold",
                hint=f"set `opset = {_BLOCKED_OPSET}`, or quantize with `group_size = 0`",
            )
