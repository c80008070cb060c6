"""Counts of bytes as people read them."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def byte_size(count: int) -> str:
    """`1900000` -> `1.9 MB`; decimal units, as disks and model hubs count."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:  # noqa: B007  # the unit that fits is used below
        value /= 1000
        if value < 999.95:
            break
    return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"
