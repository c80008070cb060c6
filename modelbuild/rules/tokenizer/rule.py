"""The rule `tokenizer`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from modelbuild.api import (
    Context,
    DatasetInfo,
    DefaultInfo,
    Dep,
    Provider,
    PythonTool,
    Rule,
    TokenizerInfo,
)

_BYTES_AND_SPECIALS = 256 + 3


class Tokenizer(Rule):
    r"""A byte-level BPE tokenizer (Sennrich et al. 2016, on bytes as in GPT-2) learnt from `train`.

    Text is first cut as Qwen2 cuts it, every digit alone, so that numbers are read digit by digit, and so
    that llama.cpp, which knows such cuts by name only (`pre = "qwen2"`), makes the same tokens. Special
    tokens: `<pad>` 0, `<bos>` 1, `<eos>` 2. A sequence is `<bos> prompt "\n" completion <eos>`.

    Output: a tree that transformers loads, with `modelbuild.json`, which names `pre` and `prompt_suffix`.
    """

    dataset: Dep[DatasetInfo]
    """Its `train` split is what the merges are learnt from."""
    vocab_size: int = Field(default=512, ge=_BYTES_AND_SPECIALS)
    """Tokens in all: 256 bytes, 3 special tokens, the rest merges. Fewer result when the text is too small
    to learn so many, which is an error."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the training of the tokenizer."""
        info = self.dataset.info
        if info.task not in ("text_generation", "language_modeling"):
            ctx.fail(f"`{self.dataset.label}` holds no text: its task is `{info.task}`")
        if "train" not in info.splits:
            ctx.fail(f"`{self.dataset.label}` has no split `train`")
        directory = ctx.declare_tree("tokenizer")
        ctx.run(
            tool=PythonTool(Path(__file__).with_name("tool.py"), distributions=("tokenizers",)),
            mnemonic="Tokenizer",
            inputs={"dataset": info.directory},
            outputs={"tokenizer": directory},
            params={"vocab_size": self.vocab_size, "task": info.task},
        )
        return [DefaultInfo((directory,)), TokenizerInfo(directory, self.vocab_size)]
