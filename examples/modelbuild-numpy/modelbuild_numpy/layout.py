"""How arrays lie in an archive, to the byte. Standard library only: toolchain and tools share it."""

from __future__ import annotations

from collections.abc import Iterable

HEADS = "heads"
EPSILON = "epsilon"
"""Two numbers that are no weights, 8 bytes each: attention heads, and what layer norms add to a variance."""

CODES = ".codes"
SCALES = ".scales"
"""What is behind the name of a weight that is stored as int8 [rows, columns] and float32 [rows, groups]."""

NPY_HEADER = 128
"""Bytes before the numbers of an array: ours all have the same room, which is a valid `.npy`."""

_SUFFIX = ".npy"
_LOCAL, _CENTRAL, _END = 30, 46, 22
"""Bytes of a zip file: before each member, in the directory for each member, at the end (APPNOTE 4.3)."""


def member(name: str) -> str:
    """The file in the archive that holds an array."""
    return name + _SUFFIX


def archive_bytes(arrays: Iterable[tuple[str, int]]) -> int:
    """The size of an archive. arrays: name and bytes of the numbers."""
    return _END + sum(_LOCAL + _CENTRAL + 2 * len(member(name)) + NPY_HEADER + size for name, size in arrays)
