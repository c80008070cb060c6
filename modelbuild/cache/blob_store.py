"""BlobStore: content by digest. Every store and decorator of this package speaks these three methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, Protocol

from modelbuild.digest import Digest
from modelbuild.errors import CacheError


class BlobMissing(CacheError):
    """A store does not have, or no longer has, the content of a digest."""

    def __init__(self, digest: Digest, note: str | None = None) -> None:
        super().__init__(f"the cache has no blob `{digest}`", notes=(note,) if note else ())
        self.digest = digest


class BlobMismatch(CacheError):
    """A file was offered under a digest that is not its own; nothing was stored."""

    def __init__(self, expected: Digest, actual: Digest) -> None:
        super().__init__(
            f"a blob does not match its digest `{expected}`",
            notes=(f"its content is `{actual}`, {actual.size} bytes where {expected.size} were expected",),
        )
        self.expected = expected
        self.actual = actual


class BlobStore(Protocol):
    """Stores immutable content under its digest. Safe to use from several threads."""

    def missing(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those of `digests` that `open` would not find unaltered."""

    def open(self, digest: Digest) -> BinaryIO:
        """A stream of the content; the caller closes it. Raises BlobMissing."""

    def put_file(self, path: str, digest: Digest) -> None:
        """Stores a copy of the file at `path`, which stays as it is.

        Raises BlobMismatch when its content is not `digest`, CacheError when it cannot be written; the
        store then holds what it held before.
        """
