"""The rule `gguf`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from modelbuild.api import (
    Context,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    ModelInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    RunInfo,
    gguf_refusal,
)

_BLOCK = 32
_TASKS = ("text_generation", "language_modeling")
_FLOAT_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "F32"}
Type = Literal["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "auto"]


class Gguf(Rule):
    """Writes `model` as one GGUF file for llama.cpp, tokenizer included.

    Floating-point models are stored or converted to `type`. Integer weights are repacked, codes and scales,
    without rounding: 4 bits (or fewer) as Q4_0, 8 bits as Q8_0; that needs symmetric weights in groups of a
    multiple of 32. Any other type would round a second time and is an error unless `allow_requantize` is set.
    Vectors (norms) are always F32. A tied or equal output matrix is stored once. The type of every tensor,
    and whether it was stored, repacked or converted, is in `tensors.json`.

    A model that llama.cpp would compute otherwise than transformers is an error. It knows no sliding window
    for the families that are written here, so a file is for as many tokens as the window is wide.

    `modelbuild run` answers a sentence: `modelbuild run //targets:drone-int4 -- "climb to 40 m"`.
    """

    model: Dep[ModelInfo]
    """A language model with a byte-level BPE tokenizer."""
    type: Type = "auto"
    """Of matrices. `auto` loses nothing: F32 or F16 as stored, Q4_0 or Q8_0 for integer weights."""
    embeddings: Literal["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "auto"] = "auto"
    """Of the embedding and the output matrix; `auto` is as the rest, or as the model stores them."""
    allow_requantize: bool = False
    """Whether integer weights may be rounded a second time."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Check that the type can hold the model and declare the conversion."""
        info = self.model.info
        if info.task not in _TASKS:
            ctx.fail(f"`{self.model.label}` is a model for `{info.task}`; GGUF takes language models")
        reason = gguf_refusal(info.architecture)
        if reason:
            ctx.fail(f"`{self.model.label}` cannot be written as GGUF: {reason}")
        kind = self._resolved_type(ctx, info)
        if kind not in ("F32", "F16"):
            self._check_rows(ctx, info.architecture, kind)
        file, tensors = ctx.declare_file("model.gguf"), ctx.declare_file("tensors.json")
        here = Path(__file__)
        ctx.run(
            tool=PythonTool(here.with_name("tool.py"), ("gguf", "numpy", "safetensors"), ("gguf", "numpy")),
            mnemonic="Gguf",
            inputs={"model": info.weights},
            outputs={"model": file, "tensors": tensors},
            params={
                "type": "auto" if info.quantization and self.type == "auto" else kind,
                "file_type": kind,
                "embeddings": self.embeddings,
                "allow_requantize": self.allow_requantize,
                "licence": info.licence,
            },
            resources=Resources(ram=1 << 30),
            progress=f"packing {self.name} as {kind}",
        )
        run = PythonTool(here.with_name("run_tool.py"), ("numpy", "xllamacpp"))
        return [
            DefaultInfo((file,)),
            DeviceBinaryInfo(binary=file, format=f"gguf:{kind}", runtime="llama.cpp"),
            RunInfo(run, {"model": file}),
        ]

    def _resolved_type(self, ctx: Context, info: ModelInfo) -> str:
        quantization = info.quantization
        if not quantization:
            return _FLOAT_TYPES.get(info.dtype, "F32") if self.type == "auto" else self.type
        bits, group = int(quantization["bits"]), int(quantization["group_size"])
        lossless = "Q4_0" if bits <= 4 else "Q8_0"
        reason = ""
        if not quantization.get("symmetric", True):
            reason = "its weights are asymmetric"
        elif group % _BLOCK:
            reason = f"its groups of {group} weights are not made of blocks of {_BLOCK}"
        elif self.type not in ("auto", lossless):
            reason = f"{bits}-bit weights are not {self.type}"
        kind = lossless if self.type == "auto" else self.type
        if reason and not self.allow_requantize:
            ctx.fail(
                f"`{self.model.label}` cannot be stored as {kind} without a second rounding: {reason}",
                hint="quantize with group_size = 32, symmetric = True, or set `allow_requantize = True`",
            )
        return kind

    def _check_rows(self, ctx: Context, architecture: Mapping[str, Any], kind: str) -> None:
        heads, dim = architecture.get("num_attention_heads"), architecture.get("head_dim")
        widths = {key: architecture.get(key) for key in ("hidden_size", "intermediate_size")}
        widths["num_attention_heads x head_dim"] = heads * dim if heads and dim else None
        for key, width in widths.items():
            if width and width % _BLOCK:
                ctx.fail(
                    f"{kind} stores blocks of {_BLOCK}, and `{key}` of `{self.model.label}` is {width}",
                    hint="llama.cpp would fall back to another type; choose F16 or another width",
                )
