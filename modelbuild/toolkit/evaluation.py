"""Quality of a model on a dataset, by slice. Imports torch.

For every task: negative log-likelihood of the right answers, and, against a parent, the KL divergence and how
often both put the same answer first. Texts are answered greedily besides. Nothing here depends on the clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from modelbuild.toolkit.model_tree import write_json
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.task import Examples, Task

BATCH = 64
_Z95 = 1.959963984540054
"""Of the 95 % confidence interval."""


class Subject(Protocol):
    """A model that is judged, in torch or in a runtime."""

    def scored(self, examples: Examples, indices: Sequence[int]) -> torch.Tensor:
        """Logits of the scored rows of these examples, (N, classes) float32."""


class Writer(Protocol):
    """A subject that can answer a text."""

    def answers(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[str]:
        """Greedy answers up to the end token, at most `max_tokens` tokens long."""


@dataclass(frozen=True)
class TorchSubject:
    """A model in torch."""

    task: Task
    model: torch.nn.Module

    def scored(self, examples: Examples, indices: Sequence[int]) -> torch.Tensor:
        """Run one batch."""
        with torch.inference_mode():
            return self.task.forward(self.model, self.task.batch(examples, indices)).logits


@dataclass(frozen=True)
class Score:
    """Sums over the scored rows of one example. nll, kl in nats; right, agreed count rows."""

    rows: int
    nll: float
    right: int
    kl: float | None = None
    agreed: int | None = None


def score(task: Task, examples: Examples, subject: Subject, parent: Subject | None = None) -> list[Score]:
    """Judge every example. KL is that of the subject from its parent, KL(parent || subject)."""
    scores: dict[int, Score] = {}
    by_length = sorted(range(len(examples.lengths)), key=lambda i: (examples.lengths[i], i))
    for start in range(0, len(by_length), BATCH):
        indices = by_length[start : start + BATCH]
        targets = task.batch(examples, indices).targets
        log_probs = torch.log_softmax(subject.scored(examples, indices).double(), dim=-1)
        nll = -log_probs.gather(1, targets[:, None])[:, 0]
        first = log_probs.argmax(1)
        columns = [nll, (first == targets).double()]
        if parent is not None:
            theirs = torch.log_softmax(parent.scored(examples, indices).double(), dim=-1)
            if theirs.shape != log_probs.shape:
                raise ToolError(f"the parent has {theirs.shape[1]} classes, the model {log_probs.shape[1]}")
            columns.append((theirs.exp() * (theirs - log_probs)).sum(1))
            columns.append((first == theirs.argmax(1)).double())
        rows = [examples.rows[i] for i in indices]
        sums = [[float(part.sum()) for part in torch.split(column, rows)] for column in columns]
        for at, index in enumerate(indices):
            kl, agreed = (sums[2][at], int(sums[3][at])) if parent is not None else (None, None)
            scores[index] = Score(rows[at], sums[0][at], int(sums[1][at]), kl, agreed)
        report(start + len(indices), len(by_length), unit="examples scored")
    return [scores[i] for i in range(len(by_length))]


def rate(name: str, good: int, count: int) -> dict[str, float]:
    """A rate and its 95 % confidence interval (Wilson 1927): `name`, `name_low`, `name_high`."""
    share, square = good / count, _Z95 * _Z95
    middle = (share + square / (2 * count)) / (1 + square / count)
    reach = math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    reach *= _Z95 / (1 + square / count)
    return {name: share, f"{name}_low": max(0.0, middle - reach), f"{name}_high": min(1.0, middle + reach)}


def text_metrics(scores: Sequence[Score], sizes: Sequence[int]) -> dict[str, float]:
    """Perplexity a token and bits a byte. sizes: bytes of the scored text of each example."""
    nll, rows = math.fsum(s.nll for s in scores), sum(s.rows for s in scores)
    return {
        "perplexity": math.exp(min(nll / rows, 700.0)),
        "bits_per_byte": nll / math.log(2) / max(1, sum(sizes)),
        "tokens": rows,
        "bytes": sum(sizes),
    }


def parent_metrics(scores: Sequence[Score]) -> dict[str, float]:
    """KL divergence to the parent in nats a row, and top-1 agreement; nothing without a parent."""
    if any(s.kl is None for s in scores):
        return {}
    rows = sum(s.rows for s in scores)
    return {
        "kl_divergence": max(0.0, math.fsum(s.kl or 0.0 for s in scores) / rows),
        "top1_agreement": sum(s.agreed or 0 for s in scores) / rows,
    }


def class_metrics(scores: Sequence[Score]) -> dict[str, float]:
    """Accuracy, and the mean negative log-likelihood of the right label."""
    right, rows = sum(s.right for s in scores), sum(s.rows for s in scores)
    return {**rate("accuracy", right, rows), "nll": math.fsum(s.nll for s in scores) / rows}


def answer_metrics(answers: Sequence[str], expected: Sequence[str]) -> dict[str, float]:
    """Exact match, and the rate of answers that are JSON where all that is expected is JSON."""
    exact = sum(a == e for a, e in zip(answers, expected, strict=True))
    metrics = rate("exact_match", exact, len(answers))
    if all(is_json(text) for text in expected):
        metrics |= rate("valid_json", sum(map(is_json, answers)), len(answers))
    return metrics


def is_json(text: str) -> bool:
    """Whether `text` is a JSON array or object, as RFC 8259 has it (no NaN)."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, list | dict)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def by_slice(slices: Sequence[str]) -> dict[str, list[int]]:
    """Slice name -> its examples; `all` is every one."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(slices):
        groups.setdefault(name, []).append(index)
    groups["all"] = list(range(len(slices)))
    return groups


def first_of_each(slices: Sequence[str], limit: int) -> list[int]:
    """The first `limit` examples of each slice; all of them when it is 0."""
    if not limit:
        return list(range(len(slices)))
    return sorted(i for name, group in by_slice(slices).items() if name != "all" for i in group[:limit])


def write_metrics(request: Request, task: str, size: int, slices: Mapping[str, Mapping[str, float]]) -> None:
    """Write metrics.json. size: bytes of the weights that were judged. Raises ToolError for NaN."""
    for name, metrics in slices.items():
        for metric, value in metrics.items():
            if not math.isfinite(value):
                raise ToolError(f"{metric} of slice `{name}` is {value}", "the model's weights are broken")
    data = {
        "schema": 1,
        "task": task,
        "split": request.params["split"],
        "subject": {"format": request.params["format"], "bytes": size},
        "slices": {name: dict(metrics) for name, metrics in slices.items()},
    }
    write_json(request.outputs["metrics"], data)


def read_task(dataset: Path) -> str:
    """The task that a dataset tree names."""
    return str(json.loads((dataset / "dataset.json").read_text())["task"])
