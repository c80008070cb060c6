"""Stores that live and die with the process; for tests, and for builds without a writable disk."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import BinaryIO

from modelbuild.actions.result import ActionResult
from modelbuild.cache.blob_store import BlobMismatch, BlobMissing
from modelbuild.digest import Digest, digest_bytes


class InMemoryBlobStore:
    """A BlobStore in a dict."""

    def __init__(self) -> None:
        self.contents: dict[Digest, bytes] = {}

    def missing(self, digests: Iterable[Digest]) -> set[Digest]:
        """See BlobStore."""
        return {digest for digest in digests if digest not in self.contents}

    def open(self, digest: Digest) -> BinaryIO:
        """See BlobStore."""
        content = self.contents.get(digest)
        if content is None:
            raise BlobMissing(digest)
        return io.BytesIO(content)

    def put_file(self, path: str, digest: Digest) -> None:
        """See BlobStore."""
        with open(path, "rb") as stream:
            content = stream.read()
        if (actual := digest_bytes(content)) != digest:
            raise BlobMismatch(digest, actual)
        self.contents[digest] = content

    def put_bytes(self, data: bytes) -> Digest:
        """Stores `data` and returns its digest."""
        digest = digest_bytes(data)
        self.contents[digest] = bytes(data)
        return digest


class InMemoryActionCache:
    """An ActionCache in a dict. It keeps encoded results, so what cannot be encoded fails here too."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    def get(self, key: str) -> ActionResult | None:
        """See ActionCache."""
        entry = self.entries.get(key)
        return None if entry is None else ActionResult.from_json(entry)

    def put(self, key: str, result: ActionResult) -> None:
        """See ActionCache."""
        self.entries[key] = result.to_json()

    def remove(self, key: str) -> None:
        """See ActionCache."""
        self.entries.pop(key, None)
