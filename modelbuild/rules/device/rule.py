"""The rules `probes` and `reference_logits`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from modelbuild.api import (
    TEXT_TASKS,
    TRANSFORMERS_PRELOAD,
    Context,
    DatasetInfo,
    DefaultInfo,
    Dep,
    ModelInfo,
    ProbesInfo,
    Provider,
    PythonTool,
    ReferenceInfo,
    Resources,
    Rule,
    TokenizerInfo,
)
from modelbuild.rules.device.measure import TORCH, declare_reference


class Probes(Rule):
    """A few rows of a dataset, as the inputs that every runtime of a model is asked.

    Texts are encoded as for `evaluate`, and padded on the right to `length` tokens: the width that device
    binaries of language models are made for. Rows that do not fit are left out, and counted. As many rows of
    each slice are taken as of any other, spread over each; equal data gives equal probes. What really follows
    each token, and where that counts, lies beside them.
    """

    dataset: Dep[DatasetInfo]
    """Where the rows come from."""
    tokenizer: Dep[TokenizerInfo] | None = None
    """The model's; for texts."""
    rows: int = Field(default=32, ge=1)
    """How many, if there are so many."""
    length: int = Field(default=64, ge=2)
    """Tokens of a row; means nothing for images."""
    split: str = "eval"
    """Of the dataset."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the choice."""
        data = self.dataset.info
        if self.split not in data.splits:
            ctx.fail(f"`{self.dataset.label}` has no split `{self.split}`")
        probes = ctx.declare_tree("probes")
        inputs = {"dataset": data.directory}
        is_text = data.task in TEXT_TASKS
        if is_text:
            if self.tokenizer is None:
                ctx.fail("probes of a text dataset need the model's `tokenizer`")
            inputs["tokenizer"] = self.tokenizer.info.directory
        elif self.tokenizer is not None:
            ctx.fail(f"`{self.dataset.label}` holds no texts, so `tokenizer` means nothing")
        params = {"split": self.split, "rows": self.rows}
        ctx.run(
            tool=PythonTool(
                Path(__file__).with_name("probes_tool.py" if is_text else "image_probes_tool.py"),
                TORCH,
                TRANSFORMERS_PRELOAD,
            ),
            mnemonic="Probes",
            inputs=inputs,
            outputs={"probes": probes},
            params={**params, "length": self.length} if is_text else params,
            resources=Resources(ram=1 << 30),
        )
        tokenizer = self.tokenizer.info if self.tokenizer else None
        return [
            DefaultInfo((probes,)),
            ProbesInfo(probes, data.task, self.length if is_text else 0, tokenizer),
        ]


class ReferenceLogits(Rule):
    """What `model` answers to `probes` in torch, in float32; packed weights are dequantized first.

    Everything that is compared with the model shares it. Output: `reference.npy`, of the shape (rows, tokens,
    vocabulary) or (rows, labels).
    """

    model: Dep[ModelInfo]
    """The parent of what will be compared."""
    probes: Dep[ProbesInfo]
    """What it is asked."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the forward passes."""
        logits = declare_reference(ctx, self.model.info, self.probes.info)
        return [
            DefaultInfo((logits,)),
            ReferenceInfo(logits, self.model.label, self.probes.info.directory),
        ]
