"""Task: what training, distillation and scoring ask of a kind of model and its data. Imports torch.

The loops in `toolkit/training.py` and `toolkit/distillation.py` know nothing of text or images. A task turns
the rows of a dataset into batches, and a model's answer to a batch into *scored rows*: one row of logits,
shape (classes,), for every decision that counts. A completion of 20 tokens has 20 scored rows over the
vocabulary, an image has one over its labels. Cross entropy, KL to a teacher and cached teacher logits are
then the same code for all.

Adding a task (image_classification is such a one):

1. `toolkit/<task>.py` with a class that satisfies `Task`.
2. An entry file beside each family's `tool.py`, three lines each, because a tool's identity is what it
   imports: an edit of the image code must not retrain a language model.

       # rules/train/image_tool.py                      # rules/distill/image_tool.py, image_logits_tool.py
       def main(request: Request) -> None:
           run_training(request, ImageClassification())  # run_distillation, run_teacher_logits

3. The task's name in the table `TOOLS` of that family's `rule.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch


class Examples(Protocol):
    """One split, in memory."""

    @property
    def lengths(self) -> Sequence[int]:
        """The cost of each example in units (tokens; 1 for an image); batches are made of like ones."""

    @property
    def rows(self) -> Sequence[int]:
        """How many scored rows each example has."""


@dataclass(frozen=True)
class Batch:
    """Examples as tensors.

    inputs: keyword arguments of the model.
    scored: (N,) int64, the scored rows as indices into the model's logits flattened to (rows, classes), in
    the order of the examples and, within one, of its positions; None when every row counts.
    targets: (N,) int64, the right class of each scored row.
    units: tokens or images that the model reads, padding included.
    """

    inputs: Mapping[str, torch.Tensor]
    scored: torch.Tensor | None
    targets: torch.Tensor
    units: int


@dataclass(frozen=True)
class Outputs:
    """A model's answer. logits: (N, classes), scored rows only, float32.

    hidden: for each layer, input of the first layer included, (N, width) at the scored rows; empty unless
    it was asked for.
    """

    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...] = ()


class Task(Protocol):
    """A kind of model and data. `unit` names what is counted a second: `tokens`, `images`."""

    unit: str

    def examples(
        self, dataset: Path, split: str, model: Path | None, *, limit: int = 0, sequence_length: int = 0
    ) -> Examples:
        """Read `<split>.jsonl` of a dataset tree. `model`: a tokenizer or model tree (None where the task
        needs none). limit: only the first so many rows; 0 is all. sequence_length: the longest example, in
        tokens. Raises ToolError with the offending row.
        """

    def create(self, architecture: Mapping[str, Any], tokenizer: Path | None) -> torch.nn.Module:
        """A new model with random weights from torch's global generator, which the caller has seeded."""

    def load(self, model: Path) -> torch.nn.Module:
        """A model tree, float32, in eval mode. Never reads a pickle."""

    def save(self, model: torch.nn.Module, directory: Path, tokenizer: Path | None) -> None:
        """Write a model tree that `load` reads: same weights, same bytes."""

    def batch(self, examples: Examples, indices: Sequence[int]) -> Batch:
        """The examples at `indices`, in that order."""

    def forward(self, model: torch.nn.Module, batch: Batch, *, hidden: bool = False) -> Outputs:
        """Run the model. Gradients are as the caller set them."""
