"""The rule `quantize`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from modelbuild.api import (
    TRANSFORMERS_PRELOAD,
    Context,
    DatasetInfo,
    DefaultInfo,
    Dep,
    Lock,
    ModelInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
)

_DISTRIBUTIONS = ("numpy", "safetensors", "torch", "transformers", "compressed-tensors")
_TEXT = (*_DISTRIBUTIONS, "tokenizers")
_RTN_TOOLS = {
    "text_generation": ("tool.py", _TEXT),
    "language_modeling": ("tool.py", _TEXT),
    "image_classification": ("image_tool.py", _DISTRIBUTIONS),
}
_LLMCOMPRESSOR = PythonTool(
    Path(__file__).with_name("gptq_tool.py"),
    (*_TEXT, "datasets", "llmcompressor", "loguru", "tqdm"),
    TRANSFORMERS_PRELOAD,
)
GPTQMODEL = PythonTool(
    Path(__file__).with_name("gptqmodel_tool.py"), lock=Lock(Path(__file__).with_name("gptqmodel.lock"))
)
_GPTQ_BITS = (4, 8)


class Quantize(Rule):
    """Quantizes the weights of `model` to integers with shared scales; activations stay as they are.

    `gptq` (Frantar et al. 2022, as `backend` implements it) rounds column by column and lets the columns
    to come make up for the error, measured on the split `calibration`. `rtn` rounds each weight to the
    nearest value: the baseline of every comparison. Scales are float16 *before* codes are computed, so that 4
    bits, group_size 32, symmetric is the grid of GGUF's Q4_0, and packing it there loses nothing.

    Every linear layer is quantized; one that cannot be is an error. `embeddings` says what becomes of the
    embedding and of a language model's output matrix. Norms and biases stay as they are.

    Output: a tree in compressed-tensors' format `pack-quantized`, or with the backend `gptqmodel` in
    AutoGPTQ's; transformers loads both. In it `quantization.json`: the error of every layer, and what was not
    quantized.
    """

    model: Dep[ModelInfo]
    """The parent, in floating point."""
    scheme: Literal["gptq", "rtn"]
    """How codes are chosen."""
    backend: Literal["llmcompressor", "gptqmodel"] = "llmcompressor"
    """Who implements `gptq`, and so the format of the output; `gptqmodel` continues AutoGPTQ, and runs in an
    environment of its own."""
    bits: Literal[2, 3, 4, 8] = 4
    """Of a code; `gptq` takes 4 and 8."""
    group_size: int = Field(default=32, ge=0)
    """Neighbours in a row that share a scale; 0 is a whole row, `per channel`."""
    symmetric: bool = True
    """Whether 0 is the middle of the grid; otherwise each group also has a zero point."""
    observer: Literal["minmax", "mse"] = "minmax"
    """Where scales come from: the largest weight of a group, or the range with the least squared error."""
    embeddings: Literal["rtn", "float"] = "rtn"
    """The embedding and the output matrix: `rtn` rounds them to the same grid, `float` keeps them. With `rtn`
    they are rounded first, so that `gptq` makes up for that too."""
    calibration: Dep[DatasetInfo] | None = None
    """Has a split `calibration`; needed for `gptq`. Must share nothing with what the model is judged on."""
    calibration_samples: int = Field(default=256, ge=1)
    """How many of its examples are used; fewer is an error."""
    damping: float = Field(default=0.01, gt=0)
    """Share of the mean diagonal that is added to GPTQ's Hessian."""
    seed: int = Field(default=0, ge=0)
    """Of `gptq`."""
    threads: int = Field(default=2, ge=1)
    """CPU threads. In the key: sums over another number of threads round otherwise."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Check that the grid fits the model and declare the quantization."""
        info = self.model.info
        if info.task not in _RTN_TOOLS:
            ctx.fail(f"`{self.model.label}` is a model for `{info.task}`, which `quantize` does not know")
        if info.quantization:
            ctx.fail(f"`{self.model.label}` is quantized already: a second rounding would add its error")
        self._check_widths(ctx, info.architecture)
        params: dict[str, Any] = {
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            "observer": self.observer,
            "embeddings": self.embeddings,
        }
        inputs = {"model": info.weights}
        file, distributions = _RTN_TOOLS[info.task]
        tool = PythonTool(Path(__file__).with_name(file), distributions, TRANSFORMERS_PRELOAD)
        if self.scheme != "gptq" and self.backend != "llmcompressor":
            ctx.fail(f"`{self.backend}` implements `gptq` only", hint='use scheme = "gptq"')
        if self.scheme == "gptq":
            inputs["calibration"] = self._calibration(ctx, info.task)
            params |= {
                "calibration_samples": self.calibration_samples,
                "damping": self.damping,
                "seed": self.seed,
            }
            tool = GPTQMODEL if self.backend == "gptqmodel" else _LLMCOMPRESSOR
        out = ctx.declare_tree("model")
        ctx.run(
            tool=tool,
            mnemonic="Quantize",
            inputs=inputs,
            outputs={"model": out},
            params=params,
            threads=self.threads,
            resources=Resources(cpu=self.threads, ram=2 << 30),
            progress=f"quantizing {self.name} ({self.scheme}, {self.bits} bits)",
        )
        quantization: dict[str, Any] = {
            "scheme": self.scheme,
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
            "embeddings": self.embeddings,
        }
        if info.dtype != "float32":
            quantization["floats"] = info.dtype
        made = replace(
            info,
            weights=out,
            dtype=f"int{self.bits}",
            format="gptq" if self.backend == "gptqmodel" else "compressed-tensors",
            quantization=quantization,
            parent=self.model.label,
        )
        return [DefaultInfo((out,)), made]

    def _calibration(self, ctx: Context, task: str) -> Any:
        if task == "image_classification":
            ctx.fail("`gptq` takes language models only", hint='use scheme = "rtn"')
        if self.bits not in _GPTQ_BITS:
            ctx.fail(f"`gptq` with {self.bits} bits is not supported", hint='use 4 or 8, or scheme = "rtn"')
        if self.calibration is None:
            ctx.fail("`gptq` needs data to calibrate on", hint='set `calibration = ":..."`')
        data = self.calibration.info
        if "calibration" not in data.splits:
            ctx.fail(f"`{self.calibration.label}` has no split `calibration`")
        if data.task != task:
            ctx.fail(f"`{self.calibration.label}` is for `{data.task}`, the model for `{task}`")
        return data.directory

    def _check_widths(self, ctx: Context, architecture: Any) -> None:
        if not self.group_size:
            return
        for key in ("hidden_size", "intermediate_size"):
            width = architecture.get(key)
            if width and width % self.group_size:
                ctx.fail(
                    f"`group_size` {self.group_size} does not divide `{key}` {width} of `{self.model.label}`",
                    hint="choose one that divides every width, or 0 for one scale a row",
                )
