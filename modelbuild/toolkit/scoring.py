"""Scoring language models without sampling. Imports torch.

Greedy decoding reproduces a completion exactly when, with the completion itself as context, every token of it
(its `<eos>` included) is the most likely one. So exact match needs one pass over prompt and completion
together, and only answers that are wrong have to be written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from modelbuild.toolkit.language_model import LanguageModel, Sequences, Vocabulary
from modelbuild.toolkit.progress import report

_BATCH = 64


@dataclass(frozen=True)
class SequenceScore:
    """How a model predicts one sequence's scored tokens.

    nll: negative log-likelihood, in nats, summed over `tokens` scored tokens. correct: how many of them are
    the most likely token. exact: whether all are, which is greedy decoding giving this very completion.
    """

    nll: float
    tokens: int
    correct: int

    @property
    def exact(self) -> bool:
        """Whether greedy decoding gives this completion."""
        return self.correct == self.tokens


def batches_by_length(examples: Sequences, batch_size: int = _BATCH) -> Iterator[list[int]]:
    """Indices of all examples, in batches of like length."""
    lengths = examples.lengths
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for at in range(0, len(order), batch_size):
        yield order[at : at + batch_size]


@torch.no_grad()
def score(model: torch.nn.Module, examples: Sequences) -> list[SequenceScore]:
    """The score of every sequence, in the order of `examples`."""
    task = LanguageModel()
    scores: dict[int, SequenceScore] = {}
    counts = examples.rows
    for indices in batches_by_length(examples):
        batch = task.batch(examples, indices)
        logits = task.forward(model, batch).logits
        nll = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
        right = logits.argmax(dim=-1) == batch.targets
        at = 0
        for index in indices:
            rows = counts[index]
            part = slice(at, at + rows)
            scores[index] = SequenceScore(float(nll[part].double().sum()), rows, int(right[part].sum()))
            at += rows
        report(len(scores), len(examples.ids), unit="sequences")
    return [scores[i] for i in range(len(examples.ids))]


@torch.no_grad()
def complete(
    model: torch.nn.Module, vocabulary: Vocabulary, prompts: Sequence[str], max_new_tokens: int = 128
) -> list[str]:
    """Greedy answers, one for each prompt, with a key-value cache; prompts of one length go together."""
    ids = vocabulary.prompts(prompts)
    answers: dict[int, list[int]] = {}
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(ids):
        by_length.setdefault(len(prompt), []).append(index)
    for _, indices in sorted(by_length.items()):
        for at in range(0, len(indices), _BATCH):
            some = indices[at : at + _BATCH]
            tokens = torch.tensor([ids[i] for i in some])
            made = _greedy(model, vocabulary.eos, tokens, max_new_tokens)
            answers.update(zip(some, made, strict=True))
            report(len(answers), len(ids), unit="answers")
    return [vocabulary.decode(answers[i]) for i in range(len(ids))]


def _greedy(model: torch.nn.Module, eos: int, tokens: torch.Tensor, limit: int) -> list[list[int]]:
    """tokens: (B, T). The tokens after them, without `<eos>`."""
    cache = None
    done = torch.zeros(len(tokens), dtype=torch.bool)
    made: list[torch.Tensor] = []
    for _ in range(limit):
        output = model(input_ids=tokens, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        following = output.logits[:, -1].argmax(dim=-1)
        made.append(torch.where(done, eos, following))
        done |= following == eos
        if bool(done.all()):
            break
        tokens = following[:, None]
    rows = torch.stack(made, dim=1).tolist()
    return [row[: row.index(eos)] if eos in row else row for row in rows]
