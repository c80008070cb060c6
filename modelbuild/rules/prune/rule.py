"""The rule `prune`."""

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
    ModelInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    complete_architecture,
)

_DISTRIBUTIONS = ("numpy", "safetensors", "torch", "transformers")
_TOOLS = {
    "text_generation": ("tool.py", (*_DISTRIBUTIONS, "tokenizers")),
    "language_modeling": ("tool.py", (*_DISTRIBUTIONS, "tokenizers")),
    "image_classification": ("image_tool.py", _DISTRIBUTIONS),
}
_KEYS = {"mlp": "intermediate_size", "heads": "num_key_value_heads", "layers": "num_hidden_layers"}


class Prune(Rule):
    """Removes what matters least from `model`, then lets the rest recover.

    `structured` gives a smaller dense model with a new `config.json`: `ratio` names the shares of MLP
    channels, attention heads (whole key-value groups) and layers that go, the same number in every layer.
    MLP widths stay multiples of `multiple`, so that the blocks of later quantization fit: what stays is
    rounded up. `magnitude` and `wanda` (Sun et al. 2023) set the share `sparsity` of the weights of linear
    layers to zero instead; the file does not get smaller by that.

    Recovery trains the pruned model for `recovery_steps` on KL(parent || pruned) over the `train` split, with
    the parent running beside it. Pruning without recovery costs much quality.

    Output: a model tree like its parent's, with `training.json`.
    """

    model: Dep[ModelInfo]
    """The parent, in floating point."""
    method: Literal["structured", "magnitude", "wanda"] = "structured"
    """`structured` removes parts; `magnitude` and `wanda` zero single weights."""
    ratio: dict[Literal["mlp", "heads", "layers"], float] = {}
    """Shares that go, each at least 0 and less than 1. Only for `structured`."""
    sparsity: float = Field(default=0.5, gt=0, lt=1)
    """Share of weights set to zero. Only for `magnitude` and `wanda`."""
    importance: Literal["magnitude", "taylor", "activation"] = "magnitude"
    """What decides in `structured`: norms of weights, or, on `samples` examples, weight times gradient, or
    the size of activations."""
    multiple: int = Field(default=32, ge=1)
    """MLP widths stay multiples of this."""
    dataset: Dep[DatasetInfo] | None = None
    """Its `train` split is what importance is measured on and recovery learns from."""
    samples: int = Field(default=256, ge=1)
    """Examples for measuring importance."""
    recovery_steps: int = Field(default=0, ge=0)
    """Updates of the pruned model."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of the recovery; falls to zero along a cosine."""
    batch_size: int = Field(default=32, ge=1)
    """Examples a step of recovery."""
    sequence_length: int = Field(default=512, ge=2)
    """Longest sequence in tokens."""
    seed: int = Field(default=0, ge=0)
    """Of the order of examples."""
    threads: int = Field(default=2, ge=1)
    """CPU threads. In the key: sums over another number of threads round otherwise."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Check the ratios against the architecture and declare the pruning."""
        info = self.model.info
        if info.task not in _TOOLS:
            ctx.fail(f"`{self.model.label}` is a model for `{info.task}`, which `prune` does not know")
        if info.quantization:
            ctx.fail(f"`{self.model.label}` is quantized; prune first, then quantize")
        architecture = self._pruned(ctx, info)
        needs = self.recovery_steps > 0 or self.method == "wanda"
        needs = needs or (self.method == "structured" and self.importance != "magnitude")
        inputs = {"model": info.weights}
        if needs:
            if self.dataset is None:
                ctx.fail(
                    "recovery, `taylor`, `activation` and `wanda` need data", hint='set `dataset = ":..."`'
                )
            if "train" not in self.dataset.info.splits:
                ctx.fail(f"`{self.dataset.label}` has no split `train`")
            if self.dataset.info.task != info.task:
                ctx.fail(
                    f"`{self.dataset.label}` is for `{self.dataset.info.task}`, the model for `{info.task}`"
                )
            inputs["dataset"] = self.dataset.info.directory
        tool, distributions = _TOOLS[info.task]
        out = ctx.declare_tree("model")
        ctx.run(
            tool=PythonTool(Path(__file__).with_name(tool), distributions, TRANSFORMERS_PRELOAD),
            mnemonic="Prune",
            inputs=inputs,
            outputs={"model": out},
            params=self._params(),
            threads=self.threads,
            resources=Resources(cpu=self.threads, ram=2 << 30),
            resumable=self.recovery_steps > 0,
            progress=f"pruning {self.name}",
        )
        # Whatever its parent is stored in, a pruned model was trained in float32 and is stored so.
        made = replace(info, weights=out, architecture=architecture, dtype="float32", parent=self.model.label)
        return [DefaultInfo((out,)), made]

    def _params(self) -> dict[str, Any]:
        """Only what counts for the method, so that the rest is not in the key."""
        params: dict[str, Any] = {"method": self.method, "seed": self.seed, "samples": self.samples}
        params["sequence_length"] = self.sequence_length
        if self.method == "structured":
            params |= {"ratio": dict(self.ratio), "importance": self.importance, "multiple": self.multiple}
        else:
            params["sparsity"] = self.sparsity
        params["recovery_steps"] = self.recovery_steps
        if self.recovery_steps:
            params |= {"learning_rate": self.learning_rate, "batch_size": self.batch_size}
        return params

    def _pruned(self, ctx: Context, info: ModelInfo) -> dict[str, Any]:
        """The architecture afterwards; sizes are predicted from it."""
        architecture = dict(info.architecture)
        if self.method != "structured":
            if self.ratio:
                ctx.fail(f'`ratio` is for method = "structured"; `{self.method}` takes `sparsity`')
            return architecture
        if not any(self.ratio.values()):
            ctx.fail("`ratio` removes nothing", hint='for example ratio = {"mlp": 0.5}')
        architecture = complete_architecture(architecture)
        heads = architecture["num_attention_heads"]
        for part, ratio in self.ratio.items():
            if not 0 <= ratio < 1:
                ctx.fail(f"`ratio` of `{part}` is {ratio}; it is at least 0 and less than 1")
            if not ratio:
                continue
            count = architecture.get(_KEYS[part])
            if count is None:
                ctx.fail(
                    f"{part} of a `{architecture['model_type']}` cannot be pruned: it has no `{_KEYS[part]}`"
                )
            left = _kept(count, ratio, self.multiple if part == "mlp" else 1)
            if left < 1:
                ctx.fail(f"`ratio` of `{part}` leaves nothing of {count}", hint="lower it")
            if left >= count:
                ctx.fail(
                    f"`ratio` of `{part}` removes nothing of {count}",
                    hint=f"what stays is rounded up to a multiple of {self.multiple if part == 'mlp' else 1}",
                )
            architecture[_KEYS[part]] = left
            if part == "heads":
                hidden = architecture["hidden_size"]
                architecture["num_attention_heads"] = left = heads // count * left
                if hidden % left:
                    ctx.fail(
                        f"{left} heads would be left, which do not divide `hidden_size` {hidden}",
                        hint="transformers refuses such a model; choose another ratio",
                    )
        return architecture


def _kept(count: int, ratio: float, multiple: int) -> int:
    """As toolkit/pruning.py computes it; a test compares them."""
    exact = round(count * (1 - ratio), 6)
    return min(count, -int(-exact // multiple) * multiple)
