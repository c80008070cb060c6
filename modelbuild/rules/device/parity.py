"""The rules `parity_test` and `latency_test`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from modelbuild.api import (
    Artifact,
    Context,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    DeviceRunInfo,
    ModelInfo,
    ProbesInfo,
    Provider,
    PythonTool,
    ReferenceInfo,
    Rule,
    TestInfo,
)
from modelbuild.rules.device.measure import Execution, declare_execution, declare_parity, declare_reference


class _DeviceTest(Rule):
    is_test: ClassVar[bool] = True

    binary: Dep[Provider]
    """A binary that a toolchain made, such as a `device_binary`."""
    probes: Dep[ProbesInfo]
    """What it is asked."""
    threads: int = Field(default=1, ge=1)
    """Of the runtime. In the key: sums over another number of threads round otherwise."""

    def _made_by_a_toolchain(self, ctx: Context) -> tuple[DeviceBinaryInfo, DeviceRunInfo]:
        binary, run = self.binary.get(DeviceBinaryInfo), self.binary.get(DeviceRunInfo)
        if not isinstance(binary, DeviceBinaryInfo) or not isinstance(run, DeviceRunInfo):
            ctx.fail(
                f"`{self.binary.label}` does not say what runs it",
                hint="a `device_binary` does; `evaluate` takes other binaries",
            )
        return binary, run

    def _execution(self, ctx: Context) -> Execution:
        binary, run = self._made_by_a_toolchain(ctx)
        probes = self.probes.info
        if run.model.task != probes.task:
            ctx.fail(f"`{self.binary.label}` is for `{run.model.task}`, the probes for `{probes.task}`")
        return declare_execution(ctx, run, binary, probes, threads=self.threads)

    def _verdict(
        self,
        ctx: Context,
        name: str,
        measured: Artifact,
        at_most: dict[str, float],
        at_least: dict[str, float],
    ) -> Sequence[Provider]:
        for metric, bound in {**at_most, **at_least}.items():
            if not math.isfinite(bound):
                ctx.fail(f"the bound of `{metric}` is no number")
        verdict = ctx.declare_file("verdict.json")
        ctx.run(
            tool=PythonTool(Path(__file__).with_name("verdict_tool.py")),
            mnemonic="Verdict",
            inputs={name: measured},
            outputs={"verdict": verdict},
            params={"at_most": at_most, "at_least": at_least},
        )
        return [DefaultInfo((verdict, measured)), TestInfo(verdict)]


class ParityTest(_DeviceTest):
    """A test that a binary, in its own runtime on its own platform, answers as the model it was made from.

    The runtime runs where the platform's runner says: here, emulated, or on a device. Positions of the probes
    that count (completions; of a language_modeling text all) are compared with the parent's logits in torch.
    Outputs: `verdict.json` and `parity.json`. A bound that is not met, or what is no number, fails the test.
    """

    parent: Dep[Provider]
    """The model it was made from, or a `reference_logits` of that with these probes."""
    max_error: float | None = None
    """Largest allowed difference of one logit."""
    max_kl: float | None = None
    """Largest allowed KL(parent || binary), in nats, mean over the positions."""
    min_top1: float | None = None
    """Least share of positions at which both put the same token, or label, first."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the run on the device, the parent's answers, and the comparison."""
        at_most = {"max_error": self.max_error, "kl": self.max_kl}
        bounds = {name: bound for name, bound in at_most.items() if bound is not None}
        least = {} if self.min_top1 is None else {"top1_agreement": self.min_top1}
        if not bounds and not least:
            ctx.fail(
                "a test without bounds passes everything",
                hint="for example max_error = 0.05, min_top1 = 0.99",
            )
        execution = self._execution(ctx)
        reference = self._reference(ctx)
        parity = declare_parity(ctx, execution.logits, reference, None, self.probes.info)
        return self._verdict(ctx, "parity", parity, bounds, least)

    def _reference(self, ctx: Context) -> Artifact:
        reference = self.parent.get(ReferenceInfo)
        if isinstance(reference, ReferenceInfo):
            if reference.probes != self.probes.info.directory:
                ctx.fail(f"`{self.parent.label}` answers other probes than `{self.probes.label}`")
            return reference.logits
        model = self.parent.get(ModelInfo)
        if not isinstance(model, ModelInfo):
            ctx.fail(f"`{self.parent.label}` is neither a model nor a `reference_logits`")
        return declare_reference(ctx, model, self.probes.info)


class LatencyTest(_DeviceTest):
    """A test that one pass over a probe is quick enough: the median over the probes, on the device.

    Refused under emulation, whose times say nothing of a device. The times are those of the run whose logits
    are in the cache; they are measured again when the binary, the probes, the runtime or `threads` change.
    """

    max_ms: float = Field(gt=0)
    """Longest allowed median, in milliseconds."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the run on the device, and the verdict."""
        runner = self._made_by_a_toolchain(ctx)[1].platform.runner
        if runner is not None and runner.kind == "qemu-user":
            ctx.fail(
                f"times under emulation say nothing of `{self.binary.label}` on a device",
                hint="use a platform whose runner is `local` or `ssh`",
            )
        return self._verdict(ctx, "timing", self._execution(ctx).timing, {"latency_ms": self.max_ms}, {})
