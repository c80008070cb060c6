"""SHA-256 digests: the identity of every artifact, tree and action."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The SHA-256 of some bytes, and how many bytes they are."""

    sha256: str
    size: int

    def __str__(self) -> str:
        """`sha256:<64 hex digits>`; never cut short where a machine reads it."""
        return f"sha256:{self.sha256}"

    @property
    def short(self) -> str:
        """Twelve digits, for people only."""
        return self.sha256[:12]


def digest_bytes(data: bytes) -> Digest:
    """The digest of `data`."""
    return Digest(hashlib.sha256(data).hexdigest(), len(data))


def digest_file(path: Path | str) -> Digest:
    """The digest of a file's content. Raises OSError as `open` does."""
    state = hashlib.sha256()
    size = 0
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            state.update(view[:count])
            size += count
    return Digest(state.hexdigest(), size)
