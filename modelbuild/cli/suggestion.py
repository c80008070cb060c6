"""Did you mean."""

from __future__ import annotations

from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be, or None."""
    from difflib import get_close_matches  # noqa: PLC0415  # costs 4 ms, and only a mistake needs it

    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The hint of an error about an unknown word."""
    match = closest(word, known)
    return f"did you mean `{match}`?" if match else otherwise
