"""Budgets: whether a model in some format fits a device, told with the numbers before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelbuild.byte_size import byte_size
from modelbuild.platform import Budget
from modelbuild.runtime_toolchain import Footprint


def over_budget(footprint: Footprint, budget: Budget) -> tuple[str, ...]:
    """What there is no room for: what is needed, what there is, and what is missing; empty when it fits.

    What a budget does not state is no limit.
    """
    return tuple(
        f"{what}: {_exactly(needed, limit)}, {byte_size(needed - limit)} too much"
        for what, needed, limit in _limits(footprint, budget)
        if needed > limit
    )


def footprint_breakdown(footprint: Footprint, budget: Budget) -> str:
    """What a footprint is made of, in one line."""
    parts = [f"weights {byte_size(footprint.weights)}"]
    if footprint.kv_cache:
        tokens = f" for {budget.context_length:,} tokens" if budget.context_length else ""
        parts.append(f"KV cache {byte_size(footprint.kv_cache)}{tokens}")
    parts.append(f"runtime {byte_size(footprint.runtime)}")
    memory = " + ".join(parts)
    return f"on disk {byte_size(footprint.disk)}; in memory {memory} = {byte_size(footprint.ram)}"


def nearest_fitting(footprints: Mapping[str, Footprint], budget: Budget) -> str:
    """A hint: the largest format that fits, or that none does and which comes nearest.

    footprints: format -> what it takes, of every format that can be had. Raises ValueError without any.
    """
    fitting = {name: each for name, each in footprints.items() if not over_budget(each, budget)}
    if fitting:
        # Of equals the last: a toolchain offers its `auto` first, which says less than what it leads to.
        best = max(reversed(fitting), key=lambda name: (fitting[name].disk, fitting[name].ram))
        return f"`{best}` fits: {footprint_breakdown(fitting[best], budget)}"
    least = min(footprints, key=lambda name: (footprints[name].ram, footprints[name].disk))
    shorter = ", or a shorter `context_length` of the platform," if footprints[least].kv_cache else ""
    return (
        f"no format fits, a smaller model{shorter} might;"
        f" `{least}` takes the least: {footprint_breakdown(footprints[least], budget)}"
    )


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
