"""Quality of what writes text: answers and likelihoods, slice by slice. Imports torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from modelbuild.toolkit.evaluation import (
    Subject,
    TorchSubject,
    Writer,
    answer_metrics,
    by_slice,
    first_of_each,
    parent_metrics,
    read_task,
    score,
    text_metrics,
    write_metrics,
)
from modelbuild.toolkit.language_model import (
    Encoder,
    LanguageModel,
    Sequences,
    Vocabulary,
    read_rows,
    read_sequences,
)
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

_ANSWERS_AT_ONCE = 64
_SLACK = 8
"""Tokens that an answer may be longer than the longest one expected."""


class TextSubject(Subject, Writer, Protocol):
    """What can be judged by likelihood and by its answers."""


@dataclass(frozen=True)
class TorchWriter(TorchSubject):
    """A language model in torch."""

    vocabulary: Vocabulary

    def answers(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[str]:
        """Prompts of like length run together, padded on the left, with a KV cache."""
        results: dict[int, str] = {}
        by_length = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        for start in range(0, len(prompts), _ANSWERS_AT_ONCE):
            indices = by_length[start : start + _ANSWERS_AT_ONCE]
            texts = self._continue([prompts[i] for i in indices], max_tokens)
            results |= dict(zip(indices, texts, strict=True))
            report(start + len(indices), len(prompts), unit="answers")
        return [results[i] for i in range(len(prompts))]

    def _continue(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[str]:
        width = max(map(len, prompts))
        eos, pad = self.vocabulary.eos, self.vocabulary.pad
        tokens = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        answers: list[list[int]] = [[] for _ in prompts]
        open_ = set(range(len(prompts)))
        cache = None
        with torch.inference_mode():
            for _ in range(max_tokens):
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
                output = self.model(
                    input_ids=tokens,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                )
                cache = output.past_key_values
                tokens = output.logits[:, -1:].argmax(-1)
                mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
                for row, token in enumerate(tokens[:, 0].tolist()):
                    if row in open_ and token == eos:
                        open_.remove(row)
                    elif row in open_:
                        answers[row].append(token)
                if not open_:
                    break
        return [self.vocabulary.decode(ids) for ids in answers]


def evaluate_text(
    request: Request, subject: TextSubject, encoder: Encoder, parent: TextSubject | None, size: int
) -> None:
    """Judge `subject` and write its metrics. Params: split, limit, sequence_length, format."""
    params, dataset = request.params, request.inputs["dataset"]
    length = int(params["sequence_length"])
    sequences = read_sequences(dataset, params["split"], encoder, sequence_length=length)
    chosen = first_of_each(sequences.slices, int(params["limit"]))
    examples = _only(sequences, chosen)
    scores = score(LanguageModel(), examples, subject, parent)
    rows: list[dict[str, str]] = []
    answers: list[str] = []
    kind = read_task(dataset)
    if kind == "text_generation":
        every = read_rows(dataset, params["split"])
        rows = [every[i] for i in chosen]
        # Greedy decoding writes a completion exactly when each of its tokens, given those before, is the most
        # likely one: only the other answers have to be written out.
        answers = [row["completion"] for row in rows]
        wrong = [i for i, s in enumerate(scores) if s.right < s.rows]
        prompts = encoder.prompts([rows[i]["prompt"] for i in wrong])
        for i, answer in zip(wrong, subject.answers(prompts, max(examples.rows) + _SLACK), strict=True):
            answers[i] = answer
        sizes = [len(row["completion"].encode()) for row in rows]
    else:
        sizes = _bytes_of(examples, encoder)
    slices: dict[str, dict[str, float]] = {}
    for name, group in by_slice(examples.slices).items():
        part = [scores[i] for i in group]
        metrics = {
            "count": len(group),
            **text_metrics(part, [sizes[i] for i in group]),
            **parent_metrics(part),
        }
        if answers:
            expected = [rows[i]["completion"] for i in group]
            metrics |= answer_metrics([answers[i] for i in group], expected)
        slices[name] = metrics
    write_metrics(request, kind, size, slices)


def check_same_tokens(request: Request, ours: Encoder, theirs: Encoder) -> None:
    """Raise ToolError unless both encode the split alike: only then can their logits be compared."""
    params = request.params
    length = int(params["sequence_length"])
    one, other = (
        read_sequences(request.inputs["dataset"], params["split"], encoder, sequence_length=length)
        for encoder in (ours, theirs)
    )
    for number, (mine, other_ids) in enumerate(zip(one.ids, other.ids, strict=True), 1):
        if mine != other_ids:
            raise ToolError(
                f"the model and its parent tokenize example {number} of `{params['split']}` differently",
                "evaluate without `parent`, or give both the same tokenizer",
            )


def _only(sequences: Sequences, chosen: Sequence[int]) -> Sequences:
    return Sequences(
        [sequences.ids[i] for i in chosen],
        [sequences.starts[i] for i in chosen],
        [sequences.slices[i] for i in chosen],
        sequences.pad,
    )


def _bytes_of(examples: Sequences, encoder: Encoder) -> list[int]:
    """Bytes of the scored text. A piece that ends inside a character counts the bytes that it has."""
    return [
        sum(encoder.byte_length(token) for token in ids[start:])
        for ids, start in zip(examples.ids, examples.starts, strict=True)
    ]
