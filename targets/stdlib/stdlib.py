"""Python's standard library as text: one row a piece of a file, whole lines only.

Which file belongs to which split is decided by the digest of its name, so that a file never straddles two
splits and an added file moves no other.
"""

from __future__ import annotations

import hashlib
import string
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HELD_OUT = 0.10
_CALIBRATION = 0.05


def generate(args: dict[str, Any], seed: int, sources: list[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (split, row). sources: the tree that `python_stdlib` makes.

    args: `train_bytes`, `calibration_bytes` and `eval_bytes` cap each split, whole rows; `row_bytes` is the
    length that a piece of a file reaches before the next begins. Files come in the order of their digests, so
    that a cap takes a fair sample. A piece of text that stood before is left out: copyright notices and
    tables would otherwise be in two splits.
    """
    root = sources[0]
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    names.sort(key=lambda name: _fraction(name, seed))
    seen: set[str] = set()
    for split in ("eval", "calibration", "train"):  # eval first: what it holds, the others must not
        left = int(args[f"{split}_bytes"])
        mine = [name for name in names if _split(name, seed) == split]
        for name, text in _texts(root, mine, int(args["row_bytes"])):
            normal = _normal(text)
            if not normal or normal in seen:
                continue
            left -= len(text.encode())
            if left < 0:
                break
            seen.add(normal)
            yield split, {"text": text, "file": name, "slice": "all"}


def _texts(root: Path, names: list[str], size: int) -> Iterator[tuple[str, str]]:
    for name in names:
        for text in _pieces(_read(root / name), size):
            yield name, text


def _fraction(name: str, seed: int) -> float:
    """A number from 0 to 1 that depends on nothing but the name and the seed."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _split(name: str, seed: int) -> str:
    fraction = _fraction(name, seed)
    if fraction < _HELD_OUT:
        return "eval"
    return "calibration" if fraction < _HELD_OUT + _CALIBRATION else "train"


def _read(path: Path) -> str:
    """The text as Python decodes it: a byte order mark or a coding line names anything but UTF-8."""
    with tokenize.open(path) as stream:
        return stream.read()


def _pieces(text: str, size: int) -> Iterator[str]:
    """Cut after the line that makes a piece `size` characters long."""
    piece, length = [], 0
    for line in text.splitlines(keepends=True):
        piece.append(line)
        length += len(line)
        if length >= size:
            yield "".join(piece)
            piece, length = [], 0
    if piece:
        yield "".join(piece)


def _normal(text: str) -> str:
    kept = "".join(" " if c in string.punctuation else c for c in text.casefold())
    return " ".join(kept.split())
