"""Providers: what one target tells the targets that depend on it. Frozen dataclasses keyed by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelbuild.artifact import Artifact
from modelbuild.label import Label

if TYPE_CHECKING:
    from modelbuild.runner import Runner
    from modelbuild.tool import PythonTool


TEXT_TASKS = ("text_generation", "language_modeling")
"""The tasks of language models."""


@dataclass(frozen=True)
class Provider:
    """The base of every provider; toolchain authors derive their own."""


@dataclass(frozen=True)
class DefaultInfo(Provider):
    """What `build` makes of a target. `validations` are built with it and fail it; nobody reads them."""

    files: tuple[Artifact, ...] = ()
    validations: tuple[Artifact, ...] = ()


@dataclass(frozen=True)
class TokenizerInfo(Provider):
    """A tokenizer: a tree that holds `tokenizer.json` and `tokenizer_config.json`.

    vocab_size: what a model's `vocab_size` is to be. exact: whether that is the number of its tokens; else it
    came with a model that has more rows, and how many tokens there are is not known before it is read.
    """

    directory: Artifact
    vocab_size: int
    exact: bool = True


@dataclass(frozen=True)
class DatasetInfo(Provider):
    """A dataset: a tree with one file for each split, `<split>.jsonl`, and `dataset.json`.

    task: `text_generation` (lines hold `prompt`, `completion`, `slice`), `language_modeling` (lines hold
    `text`, `file`), or `image_classification` (lines hold `pixels`, `label`).
    """

    directory: Artifact
    splits: tuple[str, ...]
    task: str


@dataclass(frozen=True)
class ModelInfo(Provider):
    """A model: a tree that transformers loads (`config.json`, `model.safetensors`, tokenizer files).

    architecture: Hugging Face config keys, as far as they are known before the model is built.
    dtype: of the stored weights: `float32`, `float16`, `int8`, `int4`.
    format: `safetensors`, or for packed integer weights `compressed-tensors` or `gptq` (AutoGPTQ's).
    quantization: scheme, bits, group_size, symmetric; `floats`, the type of what is not packed, where that is
    not float32; empty for a floating-point model.
    parent: the target this one was distilled, pruned or quantized from.
    """

    weights: Artifact
    task: str
    architecture: Mapping[str, Any] = field(hash=False)
    dtype: str = "float32"
    format: str = "safetensors"
    quantization: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tokenizer: TokenizerInfo | None = None
    parent: Label | None = None
    licence: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is a language model."""
        return self.task in TEXT_TASKS


@dataclass(frozen=True)
class LogitsInfo(Provider):
    """A teacher's outputs over the training split of a dataset: a tree, shared by its students."""

    directory: Artifact
    teacher: Label


@dataclass(frozen=True)
class MetricsInfo(Provider):
    """Measured quality of `subject`: a JSON file, `{"schema": 1, "slices": {slice: {metric: number}}}`."""

    metrics: Artifact
    subject: Label


@dataclass(frozen=True)
class DeviceBinaryInfo(Provider):
    """What a device's runtime loads. format: `gguf:Q4_0`, `onnx:int8`; runtime: `llama.cpp`, `onnxruntime`.

    platform: the device it was made for; None: any that has the runtime.
    """

    binary: Artifact
    format: str
    runtime: str
    platform: Label | None = None


@dataclass(frozen=True)
class RunInfo(Provider):
    """How `modelbuild run` runs a target: a tool called with what the user typed after `--`.

    runner: the device it runs on, if not this machine.
    """

    tool: PythonTool
    inputs: Mapping[str, Artifact] = field(hash=False)
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    runner: Runner | None = None


@dataclass(frozen=True)
class RunnerInfo(Provider):
    """How the programs of a platform are run on the machine that builds."""

    runner: Runner


@dataclass(frozen=True)
class ProbesInfo(Provider):
    """Inputs that every runtime of a model is asked: a tree, see modelbuild.toolkit.probes.

    task: of the dataset they come from. length: tokens of a row, 0 for images. tokenizer: what encoded them.
    """

    directory: Artifact
    task: str
    length: int = 0
    tokenizer: TokenizerInfo | None = None


@dataclass(frozen=True)
class ReferenceInfo(Provider):
    """What `model` answers to probes in torch: float32 logits of every row, a `.npy` file."""

    logits: Artifact
    model: Label
    probes: Artifact


@dataclass(frozen=True)
class TestInfo(Provider):
    """A test or gate: `verdict` is a JSON file `{"passed": bool, "summary": str, ...}`.

    The action that writes it succeeds whatever the verdict, so that it is cached; `modelbuild test`
    reads the verdict and exits 3 when one did not pass.
    """

    verdict: Artifact
