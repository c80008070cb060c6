"""Layered stores: a fast one in front of a slow one, for example the local disk before a remote cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from typing import BinaryIO

from modelbuild.actions.result import ActionResult
from modelbuild.cache.action_cache import ActionCache
from modelbuild.cache.blob_store import BlobMissing, BlobStore
from modelbuild.cache.storage_failure import storage_failure
from modelbuild.digest import Digest


class LayeredBlobStore:
    """A BlobStore that reads `fast` before `slow`, keeps in `fast` what it had to fetch, and writes both."""

    def __init__(self, fast: BlobStore, slow: BlobStore, temporary_dir: str | None = None) -> None:
        """`temporary_dir`: where fetched content waits to be verified and stored."""
        self._fast = fast
        self._slow = slow
        self._temporary_dir = temporary_dir

    def missing(self, digests: Iterable[Digest]) -> set[Digest]:
        """See BlobStore."""
        not_fast = self._fast.missing(digests)
        return self._slow.missing(not_fast) if not_fast else not_fast

    def open(self, digest: Digest) -> BinaryIO:
        """See BlobStore."""
        with contextlib.suppress(BlobMissing):
            return self._fast.open(digest)
        self._fetch(digest)
        return self._fast.open(digest)

    def put_file(self, path: str, digest: Digest) -> None:
        """See BlobStore."""
        self._fast.put_file(path, digest)
        self._slow.put_file(path, digest)

    def fetch(self, digests: Iterable[Digest]) -> None:
        """Brings what `fast` lacks from `slow`. Raises BlobMissing for what neither has."""
        for digest in sorted(self._fast.missing(digests)):
            self._fetch(digest)

    def _fetch(self, digest: Digest) -> None:
        with self._slow.open(digest) as stream:
            try:
                fd, path = tempfile.mkstemp(dir=self._temporary_dir, prefix="fetch-")
            except OSError as error:
                raise storage_failure(error, self._temporary_dir or tempfile.gettempdir()) from error
            try:
                try:
                    with os.fdopen(fd, "wb") as target:
                        shutil.copyfileobj(stream, target, 1 << 20)
                except OSError as error:
                    raise storage_failure(error, path) from error
                self._fast.put_file(path, digest)
            finally:
                os.unlink(path)


class LayeredActionCache:
    """An ActionCache that reads `fast` before `slow`, keeps in `fast` what it found, and writes both.

    Put CompleteActionCache around it: an entry found here may rest on blobs of either layer.
    """

    def __init__(self, fast: ActionCache, slow: ActionCache) -> None:
        self._fast = fast
        self._slow = slow

    def get(self, key: str) -> ActionResult | None:
        """See ActionCache."""
        result = self._fast.get(key)
        if result is None:
            result = self._slow.get(key)
            if result is not None:
                self._fast.put(key, result)
        return result

    def put(self, key: str, result: ActionResult) -> None:
        """See ActionCache."""
        self._fast.put(key, result)
        self._slow.put(key, result)

    def remove(self, key: str) -> None:
        """See ActionCache."""
        self._fast.remove(key)
        self._slow.remove(key)
