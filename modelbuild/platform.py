"""Platforms: what a device is, as constraint values, and what it has room for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelbuild.label import Label
from modelbuild.provider import Provider
from modelbuild.runner import Runner

CPU = Label("platforms", "cpu", "cpu")
OS = Label("platforms", "os", "os")
"""The settings that every platform should state, `@platforms//cpu` and `@platforms//os`, as in Bazel."""
_BIG_ENDIAN = ("s390x", "ppc", "ppc32", "mips64")


@dataclass(frozen=True)
class ConstraintSettingInfo(Provider):
    """A property that platforms differ in. default: the value of a platform that states none."""

    label: Label
    default: Label | None = None


@dataclass(frozen=True)
class ConstraintValueInfo(Provider):
    """One value of a setting."""

    label: Label
    setting: ConstraintSettingInfo


@dataclass(frozen=True)
class ConfigSettingInfo(Provider):
    """A condition of a `select`. defines: variables that must have these values."""

    constraints: tuple[ConstraintValueInfo, ...] = ()
    defines: tuple[tuple[str, str], ...] = ()

    @property
    def requirements(self) -> frozenset[str]:
        """What decides which of two conditions is the more specific one: the one that asks for more.

        Constraint values count as variables do. Newer versions of Bazel do so, too; older ones forgot them
        (https://github.com/bazelbuild/bazel/issues/14604).
        """
        values = (str(value.label) for value in self.constraints)
        return frozenset((*values, *(f"{name}={value}" for name, value in self.defines)))


@dataclass(frozen=True, slots=True)
class Budget:
    """What a device has room for; None: not stated.

    disk: bytes for the artifact. ram: bytes for weights, KV cache and runtime together.
    context_length: tokens the KV cache must hold. latency_ms: for one pass over a probe.
    """

    disk: int | None = None
    ram: int | None = None
    context_length: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class PlatformInfo(Provider):
    """A device. constraints: setting -> value, parents' included; defaults of settings are not in it.

    runner: how its programs run on the machine that builds; None: they cannot. not_run: the reason then.
    """

    label: Label
    constraints: Mapping[Label, Label] = field(hash=False)
    budget: Budget = field(default_factory=Budget)
    runner: Runner | None = None
    not_run: str = ""
    description: str = ""

    def value(self, setting: ConstraintSettingInfo) -> Label | None:
        """The platform's value of a setting, or the setting's default."""
        return self.constraints.get(setting.label, setting.default)

    def has(self, value: ConstraintValueInfo) -> bool:
        """Whether the platform has this value."""
        return self.value(value.setting) == value.label

    def described(self) -> str:
        """What it is, for messages: `//p:drone` has `@platforms//cpu:aarch64`, ..."""
        values = ", ".join(f"`{value}`" for value in self.constraints.values())
        return f"`{self.label}` has {values or 'no constraint value'}"

    @property
    def cpu(self) -> str:
        """The name of its `@platforms//cpu` value, `aarch64`; empty when it states none."""
        value = self.constraints.get(CPU)
        return value.name if value else ""

    @property
    def os(self) -> str:
        """The name of its `@platforms//os` value, `linux`; empty when it states none."""
        value = self.constraints.get(OS)
        return value.name if value else ""


def byte_order_refusal(platform: PlatformInfo) -> str:
    """Why a file of little-endian numbers, read as it lies, is of no use on `platform`; empty: it is."""
    if platform.cpu in _BIG_ENDIAN:
        return f"the file would be little-endian, and `{platform.cpu}` is not"
    return ""
