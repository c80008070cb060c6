"""A teacher's logits over the first examples of a training split, on disk. Imports torch and safetensors.

`logits.safetensors` holds, for the scored rows of all examples one after the other:

    offsets  (examples + 1,) int64    example i has rows offsets[i] to offsets[i + 1]
    logits   (rows, classes) float16  all logits, when there are at most FULL_CLASSES classes; or else
    values   (rows, k) float16        log probabilities of the k likeliest classes, likeliest first
    indices  (rows, k) int32          which classes those are
    tail     (rows, 4) float16        the log of the sum, over all other classes, of their probabilities
                                      raised to 1/T, for each T in TAIL_TEMPERATURES

How the tail counts: the other classes are taken as one, on both sides. At temperature T the teacher's
outcomes are values / T and the tail of that T, normalised together; the student's logits are divided by T and
normalised over all classes, those outside the k summed into one. The divergence over these k + 1 outcomes is
a lower bound of the one over all classes (data processing inequality), and equal to it when k is all of them.
Leaving the tail out instead would teach a distribution that is too sharp, and taking the tail's probability
to the power 1/T one that is sharper still: at T = 2 ten thousand classes of 1e-8 weigh 1, not 0.01. Between
the temperatures of the table the tail's logarithm, which is convex in 1/T, is interpolated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.task import Task

FULL_CLASSES = 128
"""Up to so many classes all logits are kept."""
DEFAULT_TOP_K = 32
_BATCH = 64
_FILE = "logits.safetensors"
_LEAST_TAIL = 1e-7
TAIL_TEMPERATURES = (1.0, 2.0, 4.0, 8.0)
"""Temperatures at which the tail is exact."""


def run_teacher_logits(request: Request, task: Task) -> None:
    """The action: inputs `teacher` and `dataset`, output `logits`."""
    params = request.params
    seed_torch(0, request.threads)
    directory = request.inputs["teacher"]
    model = task.load(directory)
    examples = task.examples(
        request.inputs["dataset"],
        "train",
        directory,
        limit=int(params["examples"]),
        sequence_length=int(params["sequence_length"]),
    )
    counts, lengths = list(examples.rows), list(examples.lengths)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
    offsets[1:] = torch.cumsum(torch.tensor(counts), 0)
    stored: dict[str, torch.Tensor] = {}
    classes = top_k = 0
    with torch.no_grad():
        for at in range(0, len(order), _BATCH):
            indices = order[at : at + _BATCH]
            logits = task.forward(model, task.batch(examples, indices)).logits
            if not stored:
                classes = logits.shape[-1]
                top_k = _resolve_top_k(int(params["top_k"]), classes)
                stored = _allocate(int(offsets[-1]), classes, top_k)
            rows = torch.cat([torch.arange(int(offsets[i]), int(offsets[i + 1])) for i in indices])
            for name, part in _compress(logits, top_k).items():
                stored[name][rows] = part
            report(min(at + _BATCH, len(order)), len(order), unit="examples")
    out = request.outputs["logits"]
    out.mkdir(parents=True)
    save_file(stored | {"offsets": offsets}, out / _FILE)
    summary = {"schema": 1, "examples": len(counts), "rows": int(offsets[-1]), "classes": classes}
    text = json.dumps(summary | {"top_k": top_k}, indent=2)
    (out / "logits.json").write_text(text + "\n")


class TeacherLogits:
    """Reads the tree; the file is mapped into memory, not loaded."""

    def __init__(self, directory: Path, examples: int) -> None:
        summary = json.loads((directory / "logits.json").read_text())
        if summary["examples"] != examples:
            raise ToolError(
                f"the logits are of {summary['examples']} examples, the student trains on {examples}",
                hint="give `teacher_logits` and `distill` the same dataset, `examples` and `sequence_length`",
            )
        self.classes = int(summary["classes"])
        self.top_k = int(summary["top_k"])
        with safe_open(directory / _FILE, framework="pt") as stored:
            self._offsets: list[int] = stored.get_tensor("offsets").tolist()
            names = [name for name in stored.keys() if name != "offsets"]  # noqa: SIM118 - not a dict
            self._tensors = {name: stored.get_tensor(name) for name in names}

    def divergence(
        self, logits: torch.Tensor, indices: Sequence[int], counts: Sequence[int], temperature: float
    ) -> torch.Tensor:
        """Mean over scored rows of KL(teacher || student), both at `temperature`; in nats.

        logits: (N, classes), the student's at the scored rows of the examples at `indices`. counts: rows
        of every example, by which a mismatch is noticed.
        """
        spans = [(self._offsets[i], self._offsets[i + 1]) for i in indices]
        if [end - start for start, end in spans] != [counts[i] for i in indices]:
            raise ToolError("the logits were made with another tokenizer or dataset")
        if logits.shape[-1] != self.classes:
            raise ToolError(f"the student has {logits.shape[-1]} classes, its teacher {self.classes}")
        rows = {
            name: torch.cat([tensor[start:end] for start, end in spans])
            for name, tensor in self._tensors.items()
        }
        student = torch.log_softmax(logits / temperature, dim=-1)
        if "logits" in rows:
            teacher = torch.log_softmax(rows["logits"].float() / temperature, dim=-1)
            return _kl(teacher, student)
        tail = _tail_at(rows["tail"].float(), temperature, self.classes - self.top_k)
        outcomes = torch.cat([rows["values"].float() / temperature, tail[:, None]], dim=-1)
        teacher = torch.log_softmax(outcomes, dim=-1)
        kept = student.gather(-1, rows["indices"].long())
        rest = (1 - kept.exp().sum(dim=-1, keepdim=True)).clamp_min(_LEAST_TAIL).log()
        return _kl(teacher, torch.cat([kept, rest], dim=-1))


def _kl(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    return (teacher.exp() * (teacher - student)).sum(dim=-1).mean()


def _tail_at(tail: torch.Tensor, temperature: float, classes: int) -> torch.Tensor:
    """tail: (N, 4) as stored. (N,) at `temperature`: linear in 1/T between neighbours of the table, beyond
    its end towards 1/T = 0, where every class weighs 1.
    """
    inverse = [1 / t for t in TAIL_TEMPERATURES] + [0.0]
    points = torch.cat([tail, torch.full((len(tail), 1), math.log(classes))], dim=-1)
    wanted = 1 / temperature
    after = next((i for i in range(1, len(inverse)) if inverse[i] <= wanted), len(inverse) - 1)
    share = (inverse[after - 1] - wanted) / (inverse[after - 1] - inverse[after])
    return points[:, after - 1] * (1 - share) + points[:, after] * share


def _resolve_top_k(asked: int, classes: int) -> int:
    """0 stands for all."""
    if asked == 0:
        return 0 if classes <= FULL_CLASSES else DEFAULT_TOP_K
    return 0 if asked >= classes else asked


def _allocate(rows: int, classes: int, top_k: int) -> dict[str, torch.Tensor]:
    if not top_k:
        return {"logits": torch.empty(rows, classes, dtype=torch.float16)}
    return {
        "values": torch.empty(rows, top_k, dtype=torch.float16),
        "indices": torch.empty(rows, top_k, dtype=torch.int32),
        "tail": torch.empty(rows, len(TAIL_TEMPERATURES), dtype=torch.float16),
    }


def _compress(logits: torch.Tensor, top_k: int) -> dict[str, torch.Tensor]:
    if not top_k:
        # Shifted so that the largest is 0: float16 is finest there, and softmax does not see the shift.
        return {"logits": (logits - logits.amax(dim=-1, keepdim=True)).half()}
    log_probabilities = torch.log_softmax(logits, dim=-1)
    values, indices = log_probabilities.topk(top_k, dim=-1)
    rest = log_probabilities.scatter(-1, indices, -torch.inf)
    tail = torch.stack([(rest / t).logsumexp(dim=-1) for t in TAIL_TEMPERATURES], dim=-1)
    return {"values": values.half(), "indices": indices.int(), "tail": tail.half()}
