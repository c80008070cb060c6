"""Tree manifests: a directory as a sorted list of files, stored as one blob."""

from __future__ import annotations

import json
from dataclasses import dataclass

from modelbuild.digest import Digest, digest_bytes

_HEADER = "modelbuild-tree-1"


@dataclass(frozen=True, slots=True, order=True)
class TreeFile:
    """One file of a tree; `path` is relative to the tree, with `/`."""

    path: str
    digest: Digest
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory's content. Empty directories are not part of it."""

    files: tuple[TreeFile, ...]

    def encode(self) -> bytes:
        """The manifest: equal trees give equal bytes."""
        rows = [[f.path, f.digest.sha256, f.digest.size, f.executable] for f in sorted(self.files)]
        return json.dumps([_HEADER, rows], separators=(",", ":")).encode()

    @property
    def digest(self) -> Digest:
        """The digest of the manifest: the digest of the tree."""
        return digest_bytes(self.encode())

    @classmethod
    def decode(cls, data: bytes) -> Tree:
        """Raises ValueError when `data` is not a manifest."""
        try:
            header, rows = json.loads(data)
            if header != _HEADER:
                raise ValueError(f"unknown tree manifest {header!r}")
            return cls(tuple(TreeFile(p, Digest(s, n), x) for p, s, n, x in rows))
        except (TypeError, AttributeError) as error:
            raise ValueError("not a tree manifest") from error
