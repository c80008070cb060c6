"""llama.cpp as a toolchain: the rules `llama_cpp_toolchain`, `imatrix` and `tokenizer_parity_test`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from modelbuild.api import (
    TRANSFORMERS_PRELOAD,
    AnalysisError,
    Artifact,
    Context,
    Conversion,
    DatasetInfo,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    File,
    Footprint,
    Lock,
    ModelInfo,
    PlatformInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    RuntimeToolchainInfo,
    TestInfo,
    TokenizerInfo,
    byte_order_refusal,
    complete_architecture,
    device_lock,
    gguf_bytes,
    gguf_context_length,
    gguf_header_bytes,
    gguf_refusal,
    kv_cache_bytes,
    tensor_types,
)

_HERE = Path(__file__).parent
_KINDS = (
    *("auto", "F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q4_1", "Q4_0", "Q2_K"),
    *("TQ2_0", "TQ1_0"),
)
"""What can be asked for, the most faithful first. `auto` loses nothing."""
_UNIFORM = ("F32", "F16", "Q8_0", "Q4_1", "Q4_0")
"""Kinds that give every matrix the one type, as the rule `gguf` does; the rest are llama.cpp's mixes."""
_WEIGHED = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0", "Q3_K_M", "Q2_K")
"""Kinds whose rounding heeds an importance matrix."""
_WHEELS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
"""CPU -> the platform of the wheels with llama.cpp's library."""
_RUNTIME_LOCKS = {"x86_64": "requirements-runtime.lock", "aarch64": "requirements-aarch64.lock"}
_TORCH = ("compressed-tensors", "gguf", "numpy", "safetensors", "tokenizers", "torch", "transformers")
_OUTER = frozenset({"model.embed_tokens.weight", "lm_head.weight"})
_LIBRARY_BYTES = 16 << 20
"""Resident memory of the library and of an open file without its tensors, measured with xllamacpp 2026.10."""
_CELLS = 256
"""llama.cpp makes its KV cache of a multiple of this many tokens."""
_TOKENS_AT_ONCE = 512
"""Of one pass over a prompt, llama.cpp's default."""


_TERNARY = frozenset({"gguf:TQ1_0", "gguf:TQ2_0"})
"""For weights that are ternary, which is not known before the model is built."""


@dataclass(frozen=True)
class LlamaCppToolchainInfo(RuntimeToolchainInfo):
    """Makes GGUF files and runs them in llama.cpp."""

    allow_requantize: bool = False
    threads: int = 1

    def refusal(self, conversion: Conversion) -> str:
        """The device, the task, the family, a second rounding, rows that are not made of whole blocks."""
        model, format_, platform = conversion.model, conversion.format, conversion.platform
        if format_ not in self.formats:
            return f"this toolchain makes {', '.join(self.formats)}"
        if reason := byte_order_refusal(platform):
            return reason
        if platform.os == "none":
            return "llama.cpp needs an operating system"
        if not model.is_text:
            return f"GGUF holds language models here, and this one is for {model.task}"
        reason = gguf_refusal(model.architecture)
        if reason:
            return reason
        try:
            kind = self._kind(model, format_)
            _tensor_types(model, kind)
        except AnalysisError as error:
            return error.message
        return ""

    def footprint(self, conversion: Conversion) -> Footprint:
        """Tensors to the byte, the header estimated; memory with a KV cache in F16, llama.cpp's default."""
        model = conversion.model
        keys = complete_architecture(model.architecture)
        disk = gguf_bytes(keys, _tensor_types(model, self._kind(model, conversion.format)))
        header = gguf_header_bytes(keys)
        context = conversion.platform.budget.context_length or gguf_context_length(keys)
        cells = -(-context // _CELLS) * _CELLS
        return Footprint(
            disk=disk,
            weights=disk - header,
            kv_cache=kv_cache_bytes(keys, cells, 2),
            runtime=_LIBRARY_BYTES + _compute_bytes(keys, context, cells),
            detail={"tensors": disk - header, "header": header},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The file with its list of tensors; before it the importance matrix, when there is data for one."""
        model, prefix = conversion.model, conversion.prefix
        kind = self._kind(model, conversion.format)
        inputs = {"model": model.weights}
        if conversion.calibration is not None and kind in _WEIGHED and not model.quantization:
            matrix = ctx.declare_file(f"{prefix}imatrix.gguf")
            measure(ctx, model, conversion.calibration, matrix)
            inputs["imatrix"] = matrix
        file, tensors = ctx.declare_file(f"{prefix}model.gguf"), ctx.declare_file(f"{prefix}tensors.json")
        ctx.run(
            tool=PythonTool(_HERE / "convert_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="GgufConvert",
            inputs=inputs,
            outputs={"model": file, "tensors": tensors},
            params={
                "kind": kind,
                "types": _tensor_types(model, kind, imatrix="imatrix" in inputs),
                "allow_requantize": self.allow_requantize,
                "licence": model.licence,
            },
            threads=self.threads,
            resources=Resources(cpu=self.threads, ram=1 << 30),
            progress=f"converting {ctx.label.name} to {kind}",
        )
        return DeviceBinaryInfo(file, f"gguf:{kind}", self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """llama.cpp's library out of a wheel, which there is for Linux on x86-64 and aarch64."""
        path = _HERE / _RUNTIME_LOCKS.get(platform.cpu, "")
        lock = device_lock(path, platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None

    def _kind(self, model: ModelInfo, format_: str) -> str:
        """`auto` is what loses nothing. Raises AnalysisError for a second rounding."""
        asked = format_.removeprefix("gguf:")
        quantization = model.quantization
        if not quantization:
            return ("F16" if model.dtype == "float16" else "F32") if asked == "auto" else asked
        bits, group = int(quantization["bits"]), int(quantization["group_size"])
        lossless = "Q4_0" if bits <= 4 else "Q8_0"
        reason = ""
        if not quantization.get("symmetric", True):
            reason = "its weights are asymmetric"
        elif group % 32:
            reason = f"its groups of {group} weights are not made of blocks of 32"
        elif asked not in ("auto", lossless):
            reason = f"its {bits}-bit weights are {lossless}"
        kind = lossless if asked == "auto" else asked
        if reason and not self.allow_requantize:
            raise AnalysisError(f"{kind} would round its integer weights a second time: {reason}")
        return kind


class LlamaCppToolchain(Rule):
    """llama.cpp: makes GGUF files with K-quants and without a compiler, and runs them out of a wheel.

    F32, F16, Q8_0, Q4_0 and Q4_1 have one type for all matrices. Q6_K, Q5_K_M, Q4_K_M, Q3_K_M, Q2_K, TQ1_0
    and TQ2_0 are the mixes of `llama-quantize`. A row that is not made of whole blocks is an error, where
    llama.cpp takes another type without a word. With calibration data an importance matrix is measured once
    and shared by every kind that heeds one. `gguf:auto` loses nothing: F32 or F16, and Q4_0 or Q8_0 for
    integer weights. TQ1_0 and TQ2_0 take ternary weights only.
    """

    allow_requantize: bool = False
    """Whether integer weights may be rounded a second time."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of a conversion; the bytes are the same with any number."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Only what the toolchain can do."""
        formats = tuple(f"gguf:{kind}" for kind in _KINDS)
        return [
            DefaultInfo(),
            LlamaCppToolchainInfo(
                "llama.cpp", formats, self.allow_requantize, self.threads, named_only=_TERNARY
            ),
        ]


class Imatrix(Rule):
    """Measures an importance matrix: how large the inputs of each matrix are, column by column.

    Conversions with calibration data declare this very action with the defaults, so that it runs once for all
    of them. Output: `imatrix.gguf`, in the format of `llama-imatrix`; as there the matrices of the layers are
    measured, and the output matrix is not.
    """

    model: Dep[ModelInfo]
    """A language model."""
    dataset: Dep[DatasetInfo]
    """Its calibration texts. Must share nothing with what the model is judged on."""
    split: str = "calibration"
    """Of the dataset."""
    limit: int = Field(default=0, ge=0)
    """Only the first so many texts; 0 is all."""
    sequence_length: int = Field(default=512, ge=2)
    """Longest text in tokens."""
    threads: int = Field(default=1, ge=1)
    """CPU threads. In the key: sums over another number of threads round otherwise."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """One action."""
        out = ctx.declare_file("imatrix.gguf")
        measurement = Measurement(self.split, self.limit, self.sequence_length, self.threads)
        measure(ctx, self.model.info, self.dataset.info, out, measurement)
        return [DefaultInfo((out,))]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The settings of an importance matrix."""

    split: str = "calibration"
    limit: int = 0
    sequence_length: int = 512
    threads: int = 1


def measure(
    ctx: Context, model: ModelInfo, dataset: DatasetInfo, out: Artifact, how: Measurement | None = None
) -> None:
    """Declare the action that measures `out`. Nothing of a target or device is in its key."""
    how = how or Measurement()
    if not model.is_text:
        ctx.fail(f"an importance matrix is of a language model, and this is one for {model.task}")
    if dataset.task != model.task:
        ctx.fail(f"the calibration data is for `{dataset.task}`, the model for `{model.task}`")
    if how.split not in dataset.splits:
        ctx.fail(f"the calibration data has no split `{how.split}`")
    ctx.run(
        tool=PythonTool(_HERE / "imatrix_tool.py", _TORCH, TRANSFORMERS_PRELOAD),
        mnemonic="Imatrix",
        inputs={"model": model.weights, "dataset": dataset.directory},
        outputs={"imatrix": out},
        params={"split": how.split, "limit": how.limit, "sequence_length": how.sequence_length},
        threads=how.threads,
        resources=Resources(cpu=how.threads, ram=2 << 30),
        progress=f"measuring inputs for {ctx.label.name}",
    )


class TokenizerParityTest(Rule):
    """A test that llama.cpp's own tokenizer gives what the Hugging Face tokenizer gives.

    Each text is compared twice, with control tokens such as `<eos>` taken for what they are and as plain
    text, and llama.cpp must give the text back. The first text that differs fails the test and is shown.
    """

    is_test: ClassVar[bool] = True

    tokenizer: Dep[TokenizerInfo]
    """The Hugging Face tokenizer."""
    binary: Dep[DeviceBinaryInfo] | None = None
    """A GGUF file whose tokenizer is judged; without one, what a GGUF file would hold of `tokenizer`."""
    probes: File = Field(default="//toolchains/gguf:probes.jsonl", validate_default=True)
    """Texts, one JSON string a line."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the comparison."""
        inputs = {"tokenizer": self.tokenizer.info.directory, "probes": self.probes.artifact}
        if self.binary is not None:
            info = self.binary.info
            if info.runtime != "llama.cpp":
                ctx.fail(f"`{self.binary.label}` is for {info.runtime}, not for llama.cpp")
            inputs["binary"] = info.binary
        verdict = ctx.declare_file("verdict.json")
        ctx.run(
            tool=PythonTool(_HERE / "tokenizer_parity_tool.py", ("gguf", "numpy", "tokenizers", "xllamacpp")),
            mnemonic="TokenizerParity",
            inputs=inputs,
            outputs={"verdict": verdict},
            params={"vocab_size": self.tokenizer.info.vocab_size},
            progress=f"tokenizing probes of {self.tokenizer.label.name}",
        )
        return [DefaultInfo((verdict,)), TestInfo(verdict)]


def _compute_bytes(keys: Mapping[str, Any], context: int, cells: int) -> int:
    """Scratch memory of a pass over a prompt: attention scores, hidden states, logits, float32.

    Within a tenth of what llama.cpp reports for models of 64 to 512 tokens at once, without flash attention.
    """
    scores = keys["num_attention_heads"] * cells
    states = 6 * keys["hidden_size"] + 2 * keys["intermediate_size"]
    return 4 * min(context, _TOKENS_AT_ONCE) * int(scores + states + keys["vocab_size"])


def _tensor_types(model: ModelInfo, kind: str, *, imatrix: bool = False) -> dict[str, str]:
    """The type of every tensor. Raises AnalysisError where a row is not made of whole blocks."""
    types = tensor_types(model.architecture, kind, pure=kind in _UNIFORM, imatrix=imatrix)
    if model.quantization.get("embeddings") == "float" and kind in ("Q4_0", "Q8_0"):
        types |= dict.fromkeys(_OUTER & set(types), "F32")
    return types
