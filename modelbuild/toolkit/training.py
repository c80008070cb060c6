"""The training loop, for every task: seeded, resumable, reporting. Imports torch and safetensors.

What a step draws at random depends on the seed and the step's number only: the order of examples comes from
(seed, epoch), torch's generator is seeded anew at each step, nothing hangs on the clock. So a run that was
killed and continues from its checkpoint ends with the same bytes as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from modelbuild.toolkit.allocator import keep_freed_memory
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.task import Batch, Examples, Task

CHECKPOINT_INTERVAL_S = 10.0
"""Seconds between checkpoints."""
CHECKPOINT_SHARE = 0.05
"""The most of a run's time that goes into checkpoints: large models are saved less often."""
ADAM_BETAS = (0.9, 0.98)
_POOL_BATCHES = 32
"""Batches are made of examples of like length, out of pools of so many shuffled batches."""
_CURVE_POINTS = 50
_CHECKPOINT = "checkpoint.safetensors"

Loss = Callable[[Batch, Sequence[int]], tuple[torch.Tensor, Mapping[str, float]]]
"""The loss of a batch made of the examples at these indices, and what else to report."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    schedule: of the learning rate after `warmup` steps of linear rise: `cosine` or `linear` down to
    zero, or `constant`. weight_decay applies to matrices only. max_grad_norm: 0 is no clipping.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    schedule: str = "cosine"
    warmup: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Settings:
        """Those of `params` that are settings."""
        return cls(**{name: params[name] for name in cls.__dataclass_fields__ if name in params})

    def rate(self, step: int) -> float:
        """The learning rate of `step`, which counts from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.schedule == "linear":
            return self.learning_rate * (1 - done)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


@dataclass
class History:
    """The course of a run: sums over steps, as training.json shows them. No clock in it."""

    losses: list[float] = field(default_factory=list)
    units: int = 0

    def summary(self, settings: Settings, unit: str) -> dict[str, Any]:
        """Plain data: mean losses over stretches of steps, and totals."""
        stretch = max(1, math.ceil(len(self.losses) / _CURVE_POINTS))
        curve = [
            {"step": min(at + stretch, len(self.losses)), "loss": _mean(self.losses[at : at + stretch])}
            for at in range(0, len(self.losses), stretch)
        ]
        return {"schema": 1, "steps": settings.steps, unit: self.units, "curve": curve}


class Order:
    """Which examples each step sees: shuffled every epoch, batches of like length."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = list(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = -1
        self._batches: list[list[int]] = []
        self.batches_per_epoch = math.ceil(len(self._lengths) / batch_size)

    def at(self, step: int) -> list[int]:
        """The indices of the examples of `step`."""
        epoch, number = divmod(step, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffled(epoch)
        return self._batches[number]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self._seed}/{epoch}")  # noqa: S311 - an order, not a secret
        indices = list(range(len(self._lengths)))
        rng.shuffle(indices)
        pool = self._batch_size * _POOL_BATCHES
        batches: list[list[int]] = []
        for at in range(0, len(indices), pool):
            near = sorted(indices[at : at + pool], key=self._lengths.__getitem__)
            batches += [near[i : i + self._batch_size] for i in range(0, len(near), self._batch_size)]
        rng.shuffle(batches)
        return batches


def fit(
    module: torch.nn.Module,
    task: Task,
    examples: Examples,
    settings: Settings,
    loss: Loss,
    scratch: Path | None = None,
) -> History:
    """Train every parameter of `module` in place; leaves it in eval mode.

    scratch: where to checkpoint, and to continue from what is there. Raises ToolError when the loss is
    no number any more.
    """
    keep_freed_memory()
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in named.values() if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in named.values() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=ADAM_BETAS,
        fused=True,
    )
    order = Order(examples.lengths, settings.batch_size, settings.seed)
    history = History()
    checkpoint = Checkpoint(scratch / _CHECKPOINT) if scratch is not None else None
    first = checkpoint.restore(named, optimizer, history) if checkpoint is not None else 0
    module.train()
    started, units_before = time.monotonic(), history.units
    for step in range(first, settings.steps):
        torch.manual_seed(_step_seed(settings.seed, step))
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        indices = order.at(step)
        batch = task.batch(examples, indices)
        value, metrics = loss(batch, indices)
        number = float(value.detach())
        if not math.isfinite(number):
            raise ToolError(f"the loss is {number} at step {step + 1}", hint="lower `learning_rate`")
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        if settings.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(list(named.values()), settings.max_grad_norm)
        optimizer.step()
        history.losses.append(number)
        history.units += batch.units
        speed = (history.units - units_before) / max(1e-9, time.monotonic() - started)
        shown: dict[str, Any] = {f"{task.unit}_per_s": round(speed)}
        shown |= {name: round(metric, 4) for name, metric in metrics.items()}
        report(
            step + 1,
            settings.steps,
            loss=round(_mean(history.losses[-20:]), 4),
            **shown,
        )
        if checkpoint is not None and step + 1 < settings.steps:
            checkpoint.save_if_due(step + 1, named, optimizer, history)
    module.eval()
    return history


class Checkpoint:
    """One file, replaced whole: weights and moments as tensors, the rest as its metadata."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = time.monotonic()
        self._cost = 0.0

    def save_if_due(
        self,
        step: int,
        named: Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        history: History,
    ) -> None:
        """Write when long enough has passed since the last time."""
        now = time.monotonic()
        if now - self._last < max(CHECKPOINT_INTERVAL_S, self._cost / CHECKPOINT_SHARE):
            return
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in named.items():
            tensors[f"weight/{name}"] = parameter.detach().contiguous()
            for key, value in optimizer.state[parameter].items():
                tensors[f"{key}/{name}"] = value.contiguous()
        state = {"step": step, "losses": history.losses, "units": history.units}
        temporary = self._path.with_suffix(".partial")
        save_file(tensors, temporary, metadata={"state": json.dumps(state)})
        os.replace(temporary, self._path)
        self._last = time.monotonic()
        self._cost = self._last - now

    def restore(
        self, named: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, history: History
    ) -> int:
        """Put everything back; the number of steps done, 0 without a checkpoint."""
        if not self._path.is_file():
            return 0
        with safe_open(self._path, framework="pt") as stored, torch.no_grad():
            keys = stored.keys()
            for name, parameter in named.items():
                parameter.copy_(stored.get_tensor(f"weight/{name}"))
                optimizer.state[parameter] = {
                    key.partition("/")[0]: stored.get_tensor(key)
                    for key in keys
                    if key.partition("/")[2] == name and not key.startswith("weight/")
                }
            state = json.loads(stored.metadata()["state"])
        history.losses, history.units = list(state["losses"]), int(state["units"])
        return int(state["step"])


def run_training(request: Request, task: Task) -> None:
    """The `train` action: inputs `dataset` and, where the task has one, `tokenizer`; output `model`."""
    params = request.params
    settings = Settings.of(params)
    seed_torch(settings.seed, request.threads)
    tokenizer = request.inputs.get("tokenizer")
    examples = task.examples(
        request.inputs["dataset"],
        "train",
        tokenizer,
        sequence_length=int(params.get("sequence_length", 0)),
    )
    model = task.create(params["architecture"], tokenizer)

    def loss(batch: Batch, _: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, float]]:
        return torch.nn.functional.cross_entropy(task.forward(model, batch).logits, batch.targets), {}

    history = fit(model, task, examples, settings, loss, request.scratch)
    save_trained(task, model, request.outputs["model"], tokenizer, history.summary(settings, task.unit))


def save_trained(
    task: Task, model: torch.nn.Module, directory: Path, tokenizer: Path | None, summary: Mapping[str, Any]
) -> None:
    """Write the model tree and its `training.json`."""
    task.save(model, directory, tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    text = json.dumps({**summary, "parameters": parameters}, indent=2)
    (directory / "training.json").write_text(text + "\n")


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % (1 << 63)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
