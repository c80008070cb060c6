"""The rules `evaluate`, `quality_table` and `quality_gate_test`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from modelbuild.api import (
    TEXT_TASKS,
    TRANSFORMERS_PRELOAD,
    Artifact,
    Context,
    DatasetInfo,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    MetricsInfo,
    ModelInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    TestInfo,
)

_TORCH = ("numpy", "safetensors", "torch", "transformers", "compressed-tensors")
_TEXT_TOOLS = {
    "safetensors": ("tool.py", (*_TORCH, "tokenizers")),
    "llama.cpp": ("gguf_tool.py", (*_TORCH, "tokenizers", "xllamacpp")),
}
_IMAGE_TOOLS = {
    "safetensors": ("image_tool.py", _TORCH),
    "onnxruntime": ("onnx_tool.py", (*_TORCH, "onnxruntime")),
}


class Evaluate(Rule):
    """Measures the quality of `subject` on a dataset, by slice and over all.

    Texts: exact match of greedy answers, the rate of valid JSON where JSON is expected (both with a 95 %
    Wilson interval, `exact_match_low`, `exact_match_high`), perplexity a token and bits a byte of the right
    completions. Images: accuracy. With a `parent` also KL(parent || subject) in nats a token, and how often
    both put the same token first.

    A GGUF file is judged in llama.cpp, by its tokenizer, its kernels and its logits; an ONNX file in ONNX
    Runtime; a model tree in torch. Output: `metrics.json`, without a clock in it.
    """

    subject: Dep[Provider]
    """A model, or a binary for llama.cpp or ONNX Runtime."""
    dataset: Dep[DatasetInfo]
    """What it is judged on."""
    parent: Dep[ModelInfo] | None = None
    """What it is compared with; must tokenize alike."""
    split: str = "eval"
    """Of the dataset."""
    limit: int = Field(default=0, ge=0)
    """Only the first so many rows of each slice; 0 is all."""
    sequence_length: int = Field(default=512, ge=2)
    """Longest sequence in tokens."""
    threads: int = Field(default=2, ge=1)
    """CPU threads. In the key: sums over another number of threads round otherwise."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Choose the runtime and declare the measurement."""
        data = self.dataset.info
        if self.split not in data.splits:
            ctx.fail(f"`{self.dataset.label}` has no split `{self.split}`")
        artifact, form, runtime = self._subject(ctx, data.task)
        tools = _TEXT_TOOLS if data.task in TEXT_TASKS else _IMAGE_TOOLS
        if runtime not in tools:
            ctx.fail(f"a dataset of task `{data.task}` cannot be asked of `{runtime}`")
        file, distributions = tools[runtime]
        inputs = {"subject": artifact, "dataset": data.directory}
        if self.parent is not None:
            if self.parent.info.task != data.task:
                ctx.fail(f"`{self.parent.label}` is a model for `{self.parent.info.task}`, not `{data.task}`")
            inputs["parent"] = self.parent.info.weights
        metrics = ctx.declare_file("metrics.json")
        ctx.run(
            tool=PythonTool(Path(__file__).with_name(file), distributions, TRANSFORMERS_PRELOAD),
            mnemonic="Evaluate",
            inputs=inputs,
            outputs={"metrics": metrics},
            params={
                "split": self.split,
                "limit": self.limit,
                "sequence_length": self.sequence_length,
                "format": form,
            },
            threads=self.threads,
            resources=Resources(cpu=self.threads, ram=2 << 30),
            progress=f"evaluating {self.subject.label.name}",
        )
        return [DefaultInfo((metrics,)), MetricsInfo(metrics, self.subject.label)]

    def _subject(self, ctx: Context, task: str) -> tuple[Artifact, str, str]:
        """The artifact, its format and what runs it."""
        binary = self.subject.get(DeviceBinaryInfo)
        if isinstance(binary, DeviceBinaryInfo):
            return binary.binary, binary.format, binary.runtime
        model = self.subject.get(ModelInfo)
        if not isinstance(model, ModelInfo):
            ctx.fail(f"`{self.subject.label}` is neither a model nor a device binary")
        if model.task != task:
            ctx.fail(f"`{self.subject.label}` is a model for `{model.task}`, the dataset for `{task}`")
        return model.weights, f"{model.format}:{model.dtype}", "safetensors"


class QualityTable(Rule):
    """The quality of every step of a pipeline, in one table: from the teacher to the binary.

    Outputs: `quality.md`, for people, with the change of each number from the step before, and
    `quality.json`. Sizes are bytes of the weights.
    """

    metrics: list[Dep[MetricsInfo]] = Field(min_length=1)
    """Evaluations, in the order of the pipeline."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the table."""
        markdown, data = ctx.declare_file("quality.md"), ctx.declare_file("quality.json")
        ctx.run(
            tool=PythonTool(Path(__file__).with_name("table_tool.py")),
            mnemonic="QualityTable",
            inputs={f"metrics/{index}": dep.info.metrics for index, dep in enumerate(self.metrics)},
            outputs={"markdown": markdown, "json": data},
            params={"steps": [dep.info.subject.name for dep in self.metrics]},
        )
        return [DefaultInfo((markdown, data))]


class QualityGateTest(Rule):
    """A test of measured quality: passes when every bound holds.

    A bound names a metric of a slice, `canonical.exact_match`. A metric that was not measured, or that is no
    number, fails the test.
    """

    is_test: ClassVar[bool] = True

    metrics: Dep[MetricsInfo]
    """What is judged."""
    at_least: dict[str, float] = {}
    """Metric -> the least it may be."""
    at_most: dict[str, float] = {}
    """Metric -> the most it may be."""
    baseline: Dep[MetricsInfo] | None = None
    """What `at_most_drop` compares with."""
    at_most_drop: dict[str, float] = {}
    """Metric -> how much less than the baseline's it may be: 0.03 is three points of a rate."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the verdict."""
        bounds = {**self.at_least, **self.at_most, **self.at_most_drop}
        if not bounds:
            ctx.fail(
                "a gate without bounds passes everything", hint='for example at_least = {"all.accuracy": 0.9}'
            )
        for name, bound in bounds.items():
            if name.count(".") != 1 or not all(name.split(".")):
                ctx.fail(f"`{name}` is not a metric of a slice", hint="write `canonical.exact_match`")
            if bound != bound or bound in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN
                ctx.fail(f"the bound of `{name}` is no number")
        if bool(self.at_most_drop) != (self.baseline is not None):
            ctx.fail("`at_most_drop` and `baseline` belong together")
        inputs = {"metrics": self.metrics.info.metrics}
        if self.baseline is not None:
            inputs["baseline"] = self.baseline.info.metrics
        verdict = ctx.declare_file("verdict.json")
        ctx.run(
            tool=PythonTool(Path(__file__).with_name("gate_tool.py")),
            mnemonic="QualityGate",
            inputs=inputs,
            outputs={"verdict": verdict},
            params={"at_least": self.at_least, "at_most": self.at_most, "at_most_drop": self.at_most_drop},
        )
        return [DefaultInfo((verdict,)), TestInfo(verdict)]
