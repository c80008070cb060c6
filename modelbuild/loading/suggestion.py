"""Did you mean: the known name closest to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str | None:
    """A hint that names the closest of `known`, or None when nothing is close."""
    found = closest(name, known)
    return f"did you mean `{prefix}{found[0]}`?" if found else None


def closest(name: str, known: Iterable[str]) -> list[str]:
    """The one of `known` that `name` was most likely meant to be; empty when nothing is close."""
    from difflib import get_close_matches  # noqa: PLC0415  # costs 4 ms, and only a mistake needs it

    return get_close_matches(name, list(known), n=1, cutoff=0.6)
