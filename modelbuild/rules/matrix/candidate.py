"""The rule `release_candidate`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from modelbuild.api import (
    Context,
    DatasetInfo,
    DefaultInfo,
    Dep,
    ModelInfo,
    ProbesInfo,
    Provider,
    Rule,
)
from modelbuild.matrix import CandidateInfo
from modelbuild.rules.device.measure import declare_reference


class ReleaseCandidate(Rule):
    """A model that may be released, with what its binaries are measured by on every device.

    `parity`: the binary against `model` in torch, which tells what the conversion cost. `quality`: the binary
    against `teacher`, which tells what everything cost. Both over `probes`. What is beyond a bound fails its
    cell of the matrix.

        release_candidate(
            name = "pilot",
            model = ":int4",
            teacher = ":teacher",
            probes = ":probes",
            formats = ["gguf:Q4_0", "tvm:int4"],
        )
    """

    model: Dep[ModelInfo]
    """What is released."""
    probes: Dep[ProbesInfo] | None = None
    """What every binary of it is asked; without them nothing is measured."""
    teacher: Dep[ModelInfo] | None = None
    """What its quality is told against."""
    formats: list[str] = []
    """Those it may be released in, the preferred one first; empty: the first that a toolchain offers."""
    calibration: Dep[DatasetInfo] | None = None
    """For formats that measure activations."""
    min_top1: float = Field(default=0.98, ge=0, le=1)
    """Parity: least share of positions at which binary and model put the same token or label first."""
    max_kl: float = Field(default=0.05, gt=0)
    """Parity: largest mean KL divergence from the model, in nats."""
    min_exact_match: float = Field(default=0.0, ge=0, le=1)
    """Quality: least share of probe rows that are answered exactly."""
    threads: int = Field(default=1, ge=1)
    """Of the runtimes."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the answers of the model and of its teacher, once for all devices."""
        model = self.model.info
        reference = teacher = None
        if self.probes:
            reference = declare_reference(ctx, model, self.probes.info, prefix="model/")
            if self.teacher:
                teacher = declare_reference(ctx, self.teacher.info, self.probes.info, prefix="teacher/")
        elif self.teacher:
            ctx.fail("`teacher` means nothing without `probes`")
        bounds = {"top1_agreement": ("at_least", self.min_top1), "kl": ("at_most", self.max_kl)}
        if self.min_exact_match:
            bounds["exact_match"] = ("at_least", self.min_exact_match)
        info = CandidateInfo(
            ctx.label,
            model,
            tuple(self.formats),
            self.probes.info if self.probes else None,
            reference,
            teacher,
            self.calibration.info if self.calibration else None,
            bounds,
        )
        return [DefaultInfo((model.weights,)), model, info]
