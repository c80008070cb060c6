"""Toolchain resolution: which registered toolchains fit a platform, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelbuild.errors import AnalysisError
from modelbuild.label import Label
from modelbuild.platform import ConstraintValueInfo, PlatformInfo
from modelbuild.toolchain import DeclaredToolchainInfo

_SHOWN = 3
"""Toolchains that are named in an error for one reason; a large workspace has dozens for other CPUs."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """accepted: toolchains that fit, in the order of registration. rejected: the others, with the reason."""

    toolchain_type: Label
    platform: PlatformInfo
    accepted: tuple[DeclaredToolchainInfo, ...]
    rejected: tuple[tuple[DeclaredToolchainInfo, str], ...]

    def lines(self, *, takes_first: bool = True) -> Iterator[str]:
        """Which toolchains fit and why others do not, for `--toolchain-resolution-debug`.

        takes_first: who asked takes the first that fits; else it asks the toolchains, and tells its choice.
        """
        yield f"`{self.toolchain_type}` for `{self.platform.label}`:"
        for declared, reason in self.rejected:
            yield f"  rejected `{declared.label}`: {reason}"
        for index, declared in enumerate(self.accepted):
            verb = ("fits too" if index else "chosen") if takes_first else "fits"
            yield f"  {verb}: `{declared.label}`, which is `{declared.implementation}`"
        if not self.accepted:
            yield "  none fits"

    def error(self, user: Label, no_match_error: str = "") -> AnalysisError:
        """That no toolchain fits."""
        return AnalysisError(
            f"no toolchain for `{user}` (needs `{self.toolchain_type}`)",
            notes=(f"target platform {self.platform.described()}", *self._rejections()),
            hint=no_match_error or "`toolchains` in modelbuild.toml registers them: is one missing there?",
        )

    def _rejections(self) -> Iterator[str]:
        """A line for each reason, with the toolchains it holds for."""
        by_reason: dict[str, list[str]] = {}
        for declared, reason in self.rejected:
            by_reason.setdefault(reason, []).append(f"`{declared.label}`")
        for reason, labels in by_reason.items():
            more = len(labels) - _SHOWN
            shown = labels if more <= 0 else [*labels[:_SHOWN], f"{more} more"]
            yield f"rejected {', '.join(shown)}: {reason}"


def resolve(
    toolchain_type: Label,
    platform: PlatformInfo,
    host: PlatformInfo,
    declared: Sequence[DeclaredToolchainInfo],
) -> Resolution:
    """The toolchains of a type for a target platform, on the machine that builds.

    declared: all that are registered, the preferred ones first.
    """
    accepted: list[DeclaredToolchainInfo] = []
    rejected: list[tuple[DeclaredToolchainInfo, str]] = []
    for each in declared:
        if each.toolchain_type != toolchain_type:
            continue
        missing = first_missing(each.target_constraints, platform)
        reason = f"its target {missing}" if missing else ""
        if not reason and (missing := first_missing(each.exec_constraints, host)):
            reason = f"the machine that runs it {missing}"
        if reason:
            rejected.append((each, reason))
        else:
            accepted.append(each)
    return Resolution(toolchain_type, platform, tuple(accepted), tuple(rejected))


def first_missing(constraints: Sequence[ConstraintValueInfo], platform: PlatformInfo) -> str:
    """What `platform` lacks of `constraints`, as the end of a sentence; empty when it has them all."""
    for value in constraints:
        if not platform.has(value):
            found = platform.value(value.setting)
            has = f"has `{found}`" if found else f"states no `{value.setting.label}`"
            return f"must have `{value.label}`, and `{platform.label}` {has}"
    return ""
