"""Sizes, durations and counts as people read them."""

from __future__ import annotations

from modelbuild.byte_size import byte_size as size

__all__ = ["count", "days", "duration", "metric", "rate", "size"]

_MINUTE = 60
_HOUR = 3600


def duration(seconds: float) -> str:
    """`0.08 s`, `41.2 s`, `3 min 12 s`, `2 h 05 min`."""
    if seconds < 0.995:
        return f"{max(seconds, 0):.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    whole = round(seconds / _MINUTE)
    return f"{whole // 60} h {whole % 60:02d} min"


def days(seconds: float) -> str:
    """`3 days`."""
    return count(int(seconds // 86_400), "day")


def count(number: int, noun: str) -> str:
    """`1 target`, `1,000 targets`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def metric(value: float | str) -> str:
    """A loss or a rate, short: `1.234`, `12,340`, `0.00012`."""
    if isinstance(value, str):
        return value
    if value == 0 or (isinstance(value, int) and abs(value) < 1000):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 0.01 else f"{value:.4g}"


def rate(name: str, value: float | str) -> str:
    """A metric with its name: `loss 1.234`, `900 tokens/s`."""
    if name.endswith("_per_s"):
        return f"{metric(value)} {name.removesuffix('_per_s')}/s"
    return f"{name} {metric(value)}"
