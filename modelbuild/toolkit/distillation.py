"""Distillation, for every task: a student learns its teacher's distribution. Imports torch.

loss = alpha * KD * T^2 + beta * task + gamma * match

KD is KL(teacher || student) at temperature T (Hinton et al. 2015; T^2 keeps the gradient's size as T grows),
from logits that the teacher left once for all its students. task is cross entropy with the dataset's answers.
match compares what goes on inside; for it the teacher runs beside the student, since keeping its hidden
states on disk would take (layers x width) halves for every token:

    hidden     mean squared error between hidden states, the student's through a learnt linear projector,
               both normalised (FitNets, Romero et al. 2015; TinyBERT, Jiao et al. 2020)
    attention  KL between the relations softmax(A A^T / sqrt(d)) of queries, keys and values in the last
               mapped layer pair, in equally many relation heads (MiniLMv2, Wang et al. 2021)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.task import Batch, Task
from modelbuild.toolkit.teacher_logits import TeacherLogits
from modelbuild.toolkit.training import Settings, fit, save_trained


def run_distillation(request: Request, task: Task) -> None:
    """The `distill` action: inputs `dataset`, `logits`, `tokenizer` where the task has one, and, when
    `gamma` is not zero, `teacher`; output `model`.
    """
    params = request.params
    settings = Settings.of(params)
    seed_torch(settings.seed, request.threads)
    tokenizer = request.inputs.get("tokenizer")
    examples = task.examples(
        request.inputs["dataset"],
        "train",
        tokenizer,
        limit=int(params["examples"]),
        sequence_length=int(params["sequence_length"]),
    )
    counts = list(examples.rows)
    logits = TeacherLogits(request.inputs["logits"], len(counts))
    student = task.create(params["architecture"], tokenizer)
    module = torch.nn.ModuleDict({"student": student})
    alpha, beta, gamma = (float(params[name]) for name in ("alpha", "beta", "gamma"))
    temperature = float(params["temperature"])
    matching: Matching | None = None
    if gamma:
        matching = Matching(task, student, task.load(request.inputs["teacher"]), params)
        module["projectors"] = matching.projectors

    def loss(batch: Batch, indices: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, float]]:
        output = task.forward(student, batch, hidden=matching is not None and matching.wants_hidden)
        hard = functional.cross_entropy(output.logits, batch.targets)
        soft = logits.divergence(output.logits, indices, counts, temperature)
        total = alpha * temperature**2 * soft + beta * hard
        metrics = {"kd": float(soft.detach()), "task": float(hard.detach())}
        if matching is not None:
            match = matching.loss(batch, output.hidden)
            total = total + gamma * match
            metrics["match"] = float(match.detach())
        return total, metrics

    history = fit(module, task, examples, settings, loss, request.scratch)
    summary = history.summary(settings, task.unit)
    save_trained(task, student, request.outputs["model"], tokenizer, summary)


def uniform_layer_map(student_layers: int, teacher_layers: int) -> list[tuple[int, int]]:
    """Pairs (student layer, teacher layer), counted from 1, evenly spread, last to last."""
    return [(i, max(1, round(i * teacher_layers / student_layers))) for i in range(1, student_layers + 1)]


class Matching:
    """The inner terms of the loss, with the teacher that they need."""

    def __init__(
        self, task: Task, student: torch.nn.Module, teacher: torch.nn.Module, params: Mapping[str, Any]
    ) -> None:
        self._task = task
        self._teacher = teacher.requires_grad_(requires_grad=False)
        match = list(params["match"])
        self.wants_hidden = "hidden" in match
        small, large = _config(student), _config(teacher)
        pairs = [(int(a), int(b)) for a, b in params["layer_map"]]
        self._pairs = pairs or uniform_layer_map(small.num_hidden_layers, large.num_hidden_layers)
        for ours, theirs in self._pairs:
            if not 1 <= ours <= small.num_hidden_layers or not 1 <= theirs <= large.num_hidden_layers:
                raise ToolError(
                    f"`layer_map` pairs layer {ours} of {small.num_hidden_layers} with layer {theirs} of "
                    f"{large.num_hidden_layers}"
                )
        self.projectors = torch.nn.ModuleList(
            torch.nn.Linear(small.hidden_size, large.hidden_size, bias=False)
            for _ in (self._pairs if self.wants_hidden else [])
        )
        self._relations: tuple[Relations, Relations] | None = None
        if "attention" in match:
            ours, theirs = self._pairs[-1]
            heads = int(large.num_attention_heads)
            self._relations = Relations(student, ours, heads), Relations(teacher, theirs, heads)

    def loss(self, batch: Batch, hidden: Sequence[torch.Tensor]) -> torch.Tensor:
        """Mean over pairs of the hidden term, plus the attention term. The student has just run."""
        with torch.no_grad():
            theirs = self._task.forward(self._teacher, batch, hidden=self.wants_hidden).hidden
        total = torch.zeros(())
        for projector, (a, b) in zip(self.projectors, self._pairs, strict=False):
            projected = functional.normalize(projector(hidden[a]), dim=-1)
            target = functional.normalize(theirs[b], dim=-1)
            total = total + (projected - target).square().sum(dim=-1).mean() / len(self._pairs)
        if self._relations is not None:
            student, teacher = self._relations
            total = total + student.divergence_from(teacher, batch.scored)
        return total


class Relations:
    """Queries, keys and values of one attention layer, as its last run left them."""

    def __init__(self, model: torch.nn.Module, layer: int, heads: int) -> None:
        self._heads = heads
        self._seen: dict[str, torch.Tensor] = {}
        for name in ("q_proj", "k_proj", "v_proj"):
            found = [
                m for n, m in model.named_modules() if n.endswith(f"layers.{layer - 1}.self_attn.{name}")
            ]
            if len(found) != 1:
                raise ToolError(
                    f"`match` cannot be `attention`: the model has no `layers.{layer - 1}.self_attn.{name}`",
                    hint="leave `attention` out of `match`",
                )
            found[0].register_forward_hook(self._recorder(name))

    def divergence_from(self, teacher: Relations, scored: torch.Tensor | None) -> torch.Tensor:
        """Mean over scored positions and heads of the KL of causal relations: queries, keys, values."""
        total = torch.zeros(())
        for name, ours in self._seen.items():
            target = self._relation(teacher._seen[name], scored)
            divergence = functional.kl_div(
                self._relation(ours, scored), target, log_target=True, reduction="none"
            )
            total = total + divergence.sum(dim=-1).mean()
        return total / len(self._seen)

    def _relation(self, values: torch.Tensor, scored: torch.Tensor | None) -> torch.Tensor:
        """values: (B, T, width). Logs of the causal relations of scored positions, (N, heads, T)."""
        rows, length, width = values.shape
        heads = self._heads if width % self._heads == 0 else 1
        split = values.view(rows, length, heads, width // heads).transpose(1, 2)
        scores = split @ split.transpose(2, 3) / (width // heads) ** 0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        relations = functional.log_softmax(scores.masked_fill(future, -1e9), dim=-1)
        by_position = relations.transpose(1, 2).flatten(0, 1)
        return by_position if scored is None else by_position.index_select(0, scored)

    def _recorder(self, name: str) -> Any:
        def record(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            self._seen[name] = output

        return record


def _config(model: torch.nn.Module) -> Any:
    return model.config
