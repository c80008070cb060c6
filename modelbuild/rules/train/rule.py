"""The rule `train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelbuild.api import (
    MODEL_TYPES,
    TEXT_TASKS,
    TRANSFORMERS_PRELOAD,
    Context,
    DatasetInfo,
    DefaultInfo,
    Dep,
    ModelInfo,
    Provider,
    PythonTool,
    Resources,
    TokenizerInfo,
    complete_architecture,
)
from modelbuild.rules.train.training_rule import TrainingRule

DISTRIBUTIONS = ("torch", "transformers", "safetensors", "tokenizers")
TOOLS = {
    "text_generation": "tool.py",
    "language_modeling": "tool.py",
    "image_classification": "image_tool.py",
}
"""Task -> the tool beside this file: an edit of the image code must not retrain a language model."""


class Train(TrainingRule):
    """Trains a model from nothing, with AdamW on the `train` split.

    `architecture` is a Hugging Face configuration: `model_type` and whatever differs from its defaults.
    Vocabulary and special tokens come from the tokenizer. For `text_generation` only the completion counts
    in the loss; batches are made of examples of like length.

    Two runs give the same bytes: the order of examples is a function of `seed`, the thread count is in the
    key. A run that is killed continues from its last checkpoint and still ends with the same bytes.

    Output: a tree that transformers loads (`config.json`, `model.safetensors`, float32, the tokenizer), with
    `training.json`, the loss over the steps.
    """

    dataset: Dep[DatasetInfo]
    """What to learn; its task says how."""
    tokenizer: Dep[TokenizerInfo] | None = None
    """Needed for text."""
    architecture: dict[str, Any]
    """Hugging Face config keys, `model_type` among them."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Check the architecture and declare the training."""
        data = self.dataset.info
        tokenizer = self.tokenizer.info if self.tokenizer else None
        check_training(ctx, data, tokenizer, self.steps, self.warmup)
        architecture = resolve_architecture(ctx, self.architecture, data.task, tokenizer)
        model = ctx.declare_tree("model")
        inputs = {"dataset": data.directory}
        if tokenizer is not None:
            inputs["tokenizer"] = tokenizer.directory
        ctx.run(
            tool=PythonTool(Path(__file__).with_name(TOOLS[data.task]), DISTRIBUTIONS, TRANSFORMERS_PRELOAD),
            mnemonic="Train",
            inputs=inputs,
            outputs={"model": model},
            params={"architecture": told_architecture(self.architecture, tokenizer)} | self.training_params(),
            threads=self.threads,
            resources=Resources(cpu=self.threads, ram=training_ram(architecture)),
            resumable=True,
            progress=f"training {self.name}",
        )
        info = ModelInfo(weights=model, task=data.task, architecture=architecture, tokenizer=tokenizer)
        return [DefaultInfo((model,)), info]


def check_training(
    ctx: Context, data: DatasetInfo, tokenizer: TokenizerInfo | None, steps: int, warmup: int
) -> None:
    """Refuse what cannot be trained, whatever the architecture."""
    if "train" not in data.splits:
        ctx.fail(f"the dataset has no split `train`; it has {', '.join(data.splits)}")
    if data.task in TEXT_TASKS and tokenizer is None:
        ctx.fail(f"a dataset of task `{data.task}` needs a tokenizer", hint='set `tokenizer = ":..."`')
    if data.task not in TEXT_TASKS and tokenizer is not None:
        ctx.fail(f"a dataset of task `{data.task}` has no use for a tokenizer")
    if warmup >= steps:
        ctx.fail(f"`warmup` ({warmup}) leaves nothing of `steps` ({steps})")


def resolve_architecture(
    ctx: Context, architecture: dict[str, Any], task: str, tokenizer: TokenizerInfo | None
) -> dict[str, Any]:
    """The architecture with what the tokenizer adds, and with the defaults of a model type that is known.

    Fails on what no such model can have. Sizes are predicted from it, so that it must be complete.
    """
    keys = dict(architecture)
    if not isinstance(keys.get("model_type"), str):
        ctx.fail("`architecture` names no `model_type`", hint='for example {"model_type": "llama", ...}')
    for name, value in keys.items():
        if (name.startswith("num_") or name.endswith("_size")) and (
            not isinstance(value, int) or isinstance(value, bool) or value < 1
        ):
            ctx.fail(f"`{name}` is {value!r}, not a positive number")
    hidden, heads = keys.get("hidden_size"), keys.get("num_attention_heads")
    if hidden and heads and hidden % heads and "head_dim" not in keys:
        ctx.fail(f"`hidden_size` {hidden} is not a multiple of `num_attention_heads` {heads}")
    groups = keys.get("num_key_value_heads")
    if heads and groups and heads % groups:
        ctx.fail(f"`num_attention_heads` {heads} is not a multiple of `num_key_value_heads` {groups}")
    if hidden and heads and not hidden % heads and task in TEXT_TASKS and (hidden // heads) % 2:
        ctx.fail(f"heads are {hidden // heads} wide; rotary positions need an even width")
    if tokenizer is not None:
        stated = keys.setdefault("vocab_size", tokenizer.vocab_size)
        if tokenizer.exact and stated < tokenizer.vocab_size:
            ctx.fail(f"`vocab_size` {stated} is less than the tokenizer's {tokenizer.vocab_size}")
    return complete_architecture(keys) if keys["model_type"] in MODEL_TYPES else keys


def told_architecture(architecture: dict[str, Any], tokenizer: TokenizerInfo | None) -> dict[str, Any]:
    """What the tool gets. It counts the tokens itself, but a tokenizer that came with a model does not tell
    how many rows that model has for them.
    """
    if tokenizer is None or tokenizer.exact:
        return architecture
    return {"vocab_size": tokenizer.vocab_size, **architecture}


def training_ram(architecture: dict[str, Any]) -> int:
    """A guess in bytes: libraries and activations, and weights, gradients and two moments in float32."""
    hidden = int(architecture.get("hidden_size", 256))
    layers = int(architecture.get("num_hidden_layers", 2))
    inner = int(architecture.get("intermediate_size", 4 * hidden))
    parameters = layers * (4 * hidden * hidden + 3 * hidden * inner)
    parameters += 2 * hidden * int(architecture.get("vocab_size", 1))
    return (2 << 30) + 20 * parameters
