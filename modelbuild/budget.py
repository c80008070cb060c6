"""Budgets: whether a model in some format fits a device, told before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelbuild.byte_size import byte_size
from modelbuild.errors import AnalysisError
from modelbuild.platform import Budget, PlatformInfo
from modelbuild.runtime_toolchain import Footprint


def fits(footprint: Footprint, budget: Budget) -> bool:
    """Whether there is room for it; what a budget does not state is no limit."""
    return not any(needed > limit for _, needed, limit in _limits(footprint, budget))


def check_budget(
    footprint: Footprint,
    platform: PlatformInfo,
    alternatives: Mapping[str, Footprint],
    *,
    subject: str,
    format_: str,
) -> AnalysisError | None:
    """The error that says why it does not fit, with the numbers; None when it does.

    alternatives: the other formats that could be had on this platform, and what each takes. subject: the
    target, as an error names it. The hint is the nearest format that fits: the largest.
    """
    over = [limit for limit in _limits(footprint, platform.budget) if limit[1] > limit[2]]
    if not over:
        return None
    reasons = " and ".join(f"{byte_size(needed)} of {what}" for what, needed, _ in over)
    return AnalysisError(
        f"`{subject}` as `{format_}` does not fit `{platform.label}`: it needs {reasons}",
        notes=(
            *(
                f"{what}: {_exactly(needed, limit)}, {byte_size(needed - limit)} too much"
                for what, needed, limit in over
            ),
            breakdown(footprint, platform.budget),
        ),
        hint=_nearest(alternatives, format_, platform),
    )


def breakdown(footprint: Footprint, budget: Budget) -> str:
    """What a footprint is made of, in one line."""
    parts = [f"weights {byte_size(footprint.weights)}"]
    if footprint.kv_cache:
        tokens = f" for {budget.context_length:,} tokens" if budget.context_length else ""
        parts.append(f"KV cache {byte_size(footprint.kv_cache)}{tokens}")
    parts.append(f"runtime {byte_size(footprint.runtime)}")
    memory = " + ".join(parts)
    return f"on disk {byte_size(footprint.disk)}; in memory {memory} = {byte_size(footprint.ram)}"


def _limits(footprint: Footprint, budget: Budget) -> Iterator[tuple[str, int, int]]:
    """What is limited, what is needed, and what there is."""
    if budget.disk is not None:
        yield "disk", footprint.disk, budget.disk
    if budget.ram is not None:
        yield "memory", footprint.ram, budget.ram


def _exactly(needed: int, limit: int) -> str:
    if byte_size(needed) == byte_size(limit):
        return f"{needed:,} of {limit:,} bytes"
    return f"{byte_size(needed)} of {byte_size(limit)}"


def _nearest(alternatives: Mapping[str, Footprint], format_: str, platform: PlatformInfo) -> str:
    others = {name: each for name, each in alternatives.items() if name != format_}
    fitting = {name: each for name, each in others.items() if fits(each, platform.budget)}
    if fitting:
        best = max(fitting, key=lambda name: (fitting[name].disk, fitting[name].ram, name))
        return f"`{best}` fits: {breakdown(fitting[best], platform.budget)}"
    if not others:
        return "no other format can be had on this platform; a smaller model is needed"
    least = min(others, key=lambda name: (others[name].ram, others[name].disk, name))
    return (
        "no format fits, and a smaller model is needed;"
        f" `{least}` takes the least: {breakdown(others[least], platform.budget)}"
    )
