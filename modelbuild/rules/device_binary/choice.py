"""Which toolchain makes a model's binary for a platform, in which format; or why none can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from modelbuild.api import (
    Context,
    Conversion,
    Footprint,
    Label,
    PlatformInfo,
    RuntimeToolchainInfo,
    footprint_breakdown,
    nearest_fitting,
    over_budget,
)

DEFAULT_TYPE = "//toolchains:runtime"
AUTO = "auto"
"""The first format that the platform's toolchains offer and the platform has room for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A toolchain, and what it is asked for: a format that fits the model and the platform.

    declared_by: the `toolchain` target.
    """

    toolchain: RuntimeToolchainInfo
    declared_by: Label
    conversion: Conversion
    footprint: Footprint

    @property
    def format(self) -> str:
        """Such as `gguf:Q4_0`."""
        return self.conversion.format


@dataclass(frozen=True, slots=True)
class NoChoice:
    """reason: in one sentence. notes: what each toolchain says. hint: what to do about it.

    unknown: no toolchain of the platform makes the format at all.
    """

    reason: str
    notes: tuple[str, ...] = ()
    hint: str | None = None
    unknown: bool = False


def choose(ctx: Context, toolchain_type: Label, conversion: Conversion) -> Choice | NoChoice:
    """The first toolchain, in the order of registration, that makes what is asked for; `auto` is any format.

    Raises AnalysisError when no toolchain is for the platform at all.
    """
    format_, platform = conversion.format, conversion.platform
    offers = list(_offers(ctx, toolchain_type, platform))
    known = list(dict.fromkeys(each for _, info in offers for each in info.formats))
    named_only = {each for _, info in offers for each in info.named_only}
    wanted = [each for each in known if each not in named_only] if format_ == AUTO else [format_]
    if not offers:
        resolution = ctx.toolchains(toolchain_type, platform)
        error = ctx.no_toolchain(resolution)
        return NoChoice(f"no toolchain is for `{platform.label}`", error.notes, error.hint)
    if format_ != AUTO and format_ not in known:
        return NoChoice(
            f"no toolchain of `{platform.label}` makes `{format_}`",
            (f"its toolchains make {', '.join(f'`{each}`' for each in known)}",),
            unknown=True,
        )
    refusals: dict[str, str] = {}
    passed_over: list[str] = []
    too_large: list[Choice] = []
    for label, info in offers:
        made = [each for each in info.formats if each in wanted]
        if not made:
            passed_over.append(f"`{label}` does not make `{format_}`")
        for each in made:
            asked = replace(conversion, format=each)
            refusal = info.refusal(asked)
            if refusal:
                refusals[f"`{label}`, `{each}`"] = refusal
                passed_over.append(f"`{label}` refuses `{each}`: {refusal}")
                continue
            choice = Choice(info, label, asked, info.footprint(asked))
            excess = over_budget(choice.footprint, platform.budget)
            if not excess:
                _record(ctx, platform, passed_over, f"chosen: `{label}`, as `{each}`")
                return choice
            too_large.append(choice)
            passed_over.append(f"`{label}`, `{each}` is too large: {'; '.join(excess)}")
    _record(ctx, platform, passed_over, "nothing is left")
    if too_large:
        nearest = min(too_large, key=lambda choice: (choice.footprint.ram, choice.footprint.disk))
        return _too_large(ctx, toolchain_type, nearest)
    reasons = list(dict.fromkeys(refusals.values()))
    return NoChoice(
        reasons[0] if len(reasons) == 1 else "every toolchain refuses it",
        tuple(f"{what}: {why}" for what, why in refusals.items()),
        _what_can_be_had(ctx, toolchain_type, conversion),
    )


def alternatives(ctx: Context, toolchain_type: Label, conversion: Conversion) -> list[Choice]:
    """Every format of every toolchain of the platform that can hold the model, too large ones included.

    Formats for models of a certain kind are left out: that this is one is not known before it is built.
    """
    asked = [
        (label, info, replace(conversion, format=each))
        for label, info in _offers(ctx, toolchain_type, conversion.platform)
        for each in info.formats
        if each not in info.named_only
    ]
    return [
        Choice(info, label, each, info.footprint(each))
        for label, info, each in asked
        if not info.refusal(each)
    ]


def _record(ctx: Context, platform: PlatformInfo, passed_over: Sequence[str], end: str) -> None:
    lines = [f"`{ctx.label}` for `{platform.label}`:", *(f"passed over: {text}" for text in passed_over), end]
    ctx.record_choice("\n  ".join(lines))


def _what_can_be_had(ctx: Context, toolchain_type: Label, conversion: Conversion) -> str | None:
    """A hint where every format that was asked for is refused."""
    known = {each.format: each.footprint for each in alternatives(ctx, toolchain_type, conversion)}
    return nearest_fitting(known, conversion.platform.budget) if known else None


def _too_large(ctx: Context, toolchain_type: Label, nearest: Choice) -> NoChoice:
    budget = nearest.conversion.platform.budget
    choices = alternatives(ctx, toolchain_type, nearest.conversion)
    footprints = {each.format: each.footprint for each in choices} or {nearest.format: nearest.footprint}
    return NoChoice(
        f"as `{nearest.format}` it is too large for `{nearest.conversion.platform.label}`",
        (*over_budget(nearest.footprint, budget), footprint_breakdown(nearest.footprint, budget)),
        nearest_fitting(footprints, budget),
    )


def _offers(
    ctx: Context, toolchain_type: Label, platform: PlatformInfo
) -> Iterator[tuple[Label, RuntimeToolchainInfo]]:
    for declared in ctx.toolchains(toolchain_type, platform).accepted:
        info = declared.providers.get(RuntimeToolchainInfo)
        if not isinstance(info, RuntimeToolchainInfo):
            ctx.fail(f"`{declared.implementation}` provides no RuntimeToolchainInfo")
        yield declared.label, info
