"""The rules `distill` and `teacher_logits`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from modelbuild.api import (
    TRANSFORMERS_PRELOAD,
    Artifact,
    Context,
    DatasetInfo,
    DefaultInfo,
    Dep,
    LogitsInfo,
    ModelInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
)
from modelbuild.rules.train.rule import (
    DISTRIBUTIONS,
    check_training,
    resolve_architecture,
    told_architecture,
    training_ram,
)
from modelbuild.rules.train.training_rule import TrainingRule

TOOLS = {
    "text_generation": "tool.py",
    "language_modeling": "tool.py",
    "image_classification": "image_tool.py",
}
LOGITS_TOOLS = {
    "text_generation": "logits_tool.py",
    "language_modeling": "logits_tool.py",
    "image_classification": "image_logits_tool.py",
}


class TeacherLogits(Rule):
    """A teacher's logits over the first examples of a training split, for `distill(logits = ...)`.

    Seldom needed: `distill(teacher = ...)` declares this very action itself, and because an action is known
    by what goes into it, all students of one teacher and dataset share one run of it.

    Kept as float16: all logits of few classes, or else the `top_k` largest and the probability that is left
    to the rest, which counts as one more class (see modelbuild/toolkit/teacher_logits.py).
    """

    teacher: Dep[ModelInfo]
    """Whose logits."""
    dataset: Dep[DatasetInfo]
    """Over whose `train` split."""
    examples: int = Field(default=0, ge=0)
    """Over the first so many rows (pieces, for `language_modeling`); 0 is all."""
    top_k: int = Field(default=0, ge=0)
    """Logits kept for each position; 0 keeps all up to 128 classes, else 32."""
    sequence_length: int = Field(default=512, ge=2)
    """As for `train`; a student must use the same."""
    threads: int = Field(default=2, ge=1)
    """CPU threads; in the key."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the one action."""
        logits = ctx.declare_tree("logits")
        declare_logits(
            ctx,
            logits,
            teacher=self.teacher.info,
            data=self.dataset.info,
            examples=self.examples,
            top_k=self.top_k,
            sequence_length=self.sequence_length,
            threads=self.threads,
        )
        return [DefaultInfo((logits,)), LogitsInfo(logits, self.teacher.label)]


class Distill(TrainingRule):
    """Trains a student to answer as its teacher does (Hinton, Vinyals and Dean 2015).

    `loss = alpha * KD * temperature^2 + beta * task + gamma * match`

    KD is the KL divergence from teacher to student, both at `temperature`; task is cross entropy with the
    dataset's answers; match compares what goes on inside, and is left out while `gamma` is 0:

    - `hidden`: hidden states of paired layers, through a learnt projector that is thrown away afterwards
      (FitNets, Romero et al. 2015);
    - `attention`: relations among queries, keys and values of the last paired layer (MiniLMv2, Wang et al.
      2021).

    The teacher's logits are an artifact of their own, made once for all students of that teacher and
    dataset. With `gamma` above 0 the teacher runs beside the student as well, at about twice the time.

    The student has the teacher's tokenizer. Deterministic and resumable as `train` is.
    """

    teacher: Dep[ModelInfo]
    """Who is learnt from."""
    dataset: Dep[DatasetInfo]
    """Its `train` split is what both look at."""
    logits: Dep[LogitsInfo] | None = None
    """Logits of a `teacher_logits` target, instead of those this rule has made."""
    architecture: dict[str, Any]
    """The student's: Hugging Face config keys, `model_type` among them."""
    temperature: float = Field(default=2.0, gt=0)
    """Softens both distributions."""
    alpha: float = Field(default=0.7, ge=0)
    """Weight of the teacher's distribution."""
    beta: float = Field(default=0.3, ge=0)
    """Weight of the dataset's answers."""
    gamma: float = Field(default=0.0, ge=0)
    """Weight of what `match` names."""
    match: list[Literal["hidden", "attention"]] = ["hidden"]
    """What to compare inside when `gamma` is above 0."""
    layer_map: dict[int, int] = {}
    """Student layer -> teacher layer, counted from 1; spread evenly when empty."""
    examples: int = Field(default=0, ge=0)
    """Use the first so many rows (pieces, for `language_modeling`) of `train`; 0 is all. Bounds the time and
    space of the teacher's logits; students that share them state the same number."""
    top_k: int = Field(default=0, ge=0)
    """As for `teacher_logits`."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the teacher's logits, unless they are given, and the student."""
        data, teacher = self.dataset.info, self.teacher.info
        check_training(ctx, data, teacher.tokenizer, self.steps, self.warmup)
        architecture = resolve_architecture(ctx, self.architecture, data.task, teacher.tokenizer)
        self._check(ctx, teacher, data, architecture)
        inputs = {"dataset": data.directory, "logits": self._logits(ctx, teacher, data)}
        if teacher.tokenizer is not None:
            inputs["tokenizer"] = teacher.tokenizer.directory
        if self.gamma:
            inputs["teacher"] = teacher.weights
        model = ctx.declare_tree("model")
        ctx.run(
            tool=PythonTool(Path(__file__).with_name(TOOLS[data.task]), DISTRIBUTIONS, TRANSFORMERS_PRELOAD),
            mnemonic="Distill",
            inputs=inputs,
            outputs={"model": model},
            params={
                "architecture": told_architecture(self.architecture, teacher.tokenizer),
                "temperature": self.temperature,
                "alpha": self.alpha,
                "beta": self.beta,
                "gamma": self.gamma,
                "match": sorted(self.match) if self.gamma else [],
                "layer_map": [list(pair) for pair in sorted(self.layer_map.items())],
                "examples": self.examples,
            }
            | self.training_params(),
            threads=self.threads,
            resources=Resources(cpu=self.threads, ram=training_ram(architecture)),
            resumable=True,
            progress=f"distilling {self.name}",
        )
        info = ModelInfo(
            weights=model,
            task=data.task,
            architecture=architecture,
            tokenizer=teacher.tokenizer,
            parent=self.teacher.label,
            licence=teacher.licence,
        )
        return [DefaultInfo((model,)), info]

    def _check(
        self, ctx: Context, teacher: ModelInfo, data: DatasetInfo, architecture: dict[str, Any]
    ) -> None:
        if not (self.alpha or self.beta or self.gamma):
            ctx.fail("`alpha`, `beta` and `gamma` are all 0: nothing is learnt")
        if self.gamma and not self.match:
            ctx.fail("`gamma` weighs nothing: `match` is empty", hint='set `match = ["hidden"]`')
        if self.layer_map and not self.gamma:
            ctx.fail("`layer_map` has no effect while `gamma` is 0")
        if (teacher.task in TOOLS) and teacher.task != data.task:
            ctx.fail(
                f"`{self.teacher.label}` was made for task `{teacher.task}`, the dataset is `{data.task}`"
            )
        for name in ("vocab_size", "num_labels"):
            ours, theirs = architecture.get(name), teacher.architecture.get(name)
            if ours and theirs and ours != theirs:
                ctx.fail(f"`{name}` is {ours}, the teacher's is {theirs}: their logits cannot be compared")
        layers = architecture.get("num_hidden_layers"), teacher.architecture.get("num_hidden_layers")
        for ours, theirs in self.layer_map.items():
            for name, number, count in (("student", ours, layers[0]), ("teacher", theirs, layers[1])):
                if number < 1 or (count and number > count):
                    ctx.fail(f"`layer_map` names layer {number} of a {name} that has 1 to {count}")
        if self.logits is not None:
            if self.logits.info.teacher != self.teacher.label:
                ctx.fail(f"`{self.logits.label}` holds logits of `{self.logits.info.teacher}`")
            if self.top_k:
                ctx.fail("`top_k` has no effect: `logits` says how many were kept")

    def _logits(self, ctx: Context, teacher: ModelInfo, data: DatasetInfo) -> Artifact:
        if self.logits is not None:
            return self.logits.info.directory
        logits = ctx.declare_tree("teacher-logits")
        declare_logits(
            ctx,
            logits,
            teacher=teacher,
            data=data,
            examples=self.examples,
            top_k=self.top_k,
            sequence_length=self.sequence_length,
            threads=self.threads,
        )
        return logits


def declare_logits(
    ctx: Context,
    output: Artifact,
    *,
    teacher: ModelInfo,
    data: DatasetInfo,
    examples: int,
    top_k: int,
    sequence_length: int,
    threads: int,
) -> None:
    """The action both rules declare. Nothing of the student is in it, so that its key is the same for all."""
    if data.task not in LOGITS_TOOLS:
        ctx.fail(f"no teacher has logits for task `{data.task}`")
    ctx.run(
        tool=PythonTool(
            Path(__file__).with_name(LOGITS_TOOLS[data.task]), DISTRIBUTIONS, TRANSFORMERS_PRELOAD
        ),
        mnemonic="TeacherLogits",
        inputs={"teacher": teacher.weights, "dataset": data.directory},
        outputs={"logits": output},
        params={"examples": examples, "top_k": top_k, "sequence_length": sequence_length},
        threads=threads,
        resources=Resources(cpu=threads, ram=training_ram(dict(teacher.architecture))),
        progress="teacher logits",
    )
