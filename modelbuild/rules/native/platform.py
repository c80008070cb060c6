"""platform and host_platform: devices."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from modelbuild.analysis.context import Context
from modelbuild.attribute import Dep
from modelbuild.label import Label
from modelbuild.platform import Budget, ConstraintValueInfo, PlatformInfo
from modelbuild.provider import DefaultInfo, Provider, RunnerInfo
from modelbuild.rules.native.native_rule import NativeRule
from modelbuild.runner import LOCAL

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?i?B)?\Z")
_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "i686": "x86_32"}
"""What the kernel calls a CPU -> its value in `@platforms//cpu`, where they differ."""


class Platform(NativeRule):
    """A device: constraint values, as in Bazel, and what it has room for.

    Values and budgets of `parents` hold unless stated again. A budget is checked before anything is trained.

        platform(
            name = "drone",
            constraint_values = ["@platforms//cpu:aarch64", "@platforms//os:linux"],
            ram = "512 MiB",
            context_length = 256,
        )
    """

    parents: list[Dep[PlatformInfo]] = []
    """At most one platform, whose values are taken over."""
    constraint_values: list[Dep[ConstraintValueInfo]] = []
    """One value for each setting."""
    disk: str = ""
    """Room for the artifact: `64 MiB`, `2 GB`."""
    ram: str = ""
    """Room for weights, KV cache and runtime together."""
    context_length: int | None = Field(default=None, gt=0)
    """Tokens that the KV cache must hold."""
    latency_ms: float | None = Field(default=None, gt=0)
    """Longest allowed time of one pass over a probe, on the device itself."""
    runner: Dep[RunnerInfo] | None = None
    """How its programs run here, a `device_runner`; needless where this machine is such a device."""
    not_run: str = ""
    """Why its programs cannot be run here, for reports."""
    description: str = ""
    """The device, and where its figures come from."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Merge with the parent."""
        if len(self.parents) > 1:
            ctx.fail("a platform has at most one parent")
        parent = self.parents[0].info if self.parents else None
        own: dict[Label, Label] = {}
        for value in (dependency.info for dependency in self.constraint_values):
            other = own.setdefault(value.setting.label, value.label)
            if other != value.label:
                ctx.fail(f"`{other}` and `{value.label}` are both values of `{value.setting.label}`")
        stated = Budget(
            self._bytes(ctx, "disk"), self._bytes(ctx, "ram"), self.context_length, self.latency_ms
        )
        base = parent.budget if parent else Budget()
        budget = Budget(
            *(
                getattr(base, name) if getattr(stated, name) is None else getattr(stated, name)
                for name in Budget.__slots__
            )
        )
        runner = self.runner.info.runner if self.runner else None
        if runner is None and not self.not_run and parent:
            runner = parent.runner
        not_run = self.not_run or (parent.not_run if parent and runner is None else "")
        info = PlatformInfo(
            ctx.label,
            {**(parent.constraints if parent else {}), **own},
            budget,
            runner,
            not_run,
            self.description or (parent.description if parent else ""),
        )
        if runner is None and not not_run and (info.cpu, info.os) == host_machine():
            info = PlatformInfo(info.label, info.constraints, budget, LOCAL, description=info.description)
        return [DefaultInfo(), info]

    def _bytes(self, ctx: Context, name: Literal["disk", "ram"]) -> int | None:
        text = self.disk if name == "disk" else self.ram
        if not text:
            return None
        found = _SIZE.match(text)
        size = int(float(found[1]) * _UNITS.get(found[2] or "", 0)) if found else 0
        if not size:
            ctx.fail(f"`{name}` is `{text}`, which is no size", hint="write `512 MiB` or `2 GB`")
        return size


class HostPlatform(NativeRule):
    """The machine that builds, as `@platforms//host:host`."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Its CPU and operating system."""
        cpu, system = host_machine()
        constraints = {
            Label("platforms", "cpu", "cpu"): Label("platforms", "cpu", cpu),
            Label("platforms", "os", "os"): Label("platforms", "os", system),
        }
        return [DefaultInfo(), PlatformInfo(ctx.label, constraints, runner=LOCAL, description="this machine")]


def host_machine() -> tuple[str, str]:
    """Names of the `@platforms//cpu` and `@platforms//os` values of this machine."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine), "macos" if sys.platform == "darwin" else sys.platform
