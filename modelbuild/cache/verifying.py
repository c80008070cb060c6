"""VerifyingBlobStore: nothing that comes out of an untrusted store is seen before its digest was checked."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, cast

from modelbuild.cache.blob_store import BlobMismatch, BlobMissing, BlobStore
from modelbuild.digest import Digest, digest_file

_CHUNK = 1 << 20
_IN_MEMORY = 8 << 20


class VerifyingBlobStore:
    """A BlobStore that checks all content of `inner`, both ways.

    Content is read to its end into a temporary file (into memory up to 8 MiB) before the caller sees its
    first byte; altered content counts as missing.
    """

    def __init__(self, inner: BlobStore, temporary_dir: str | None = None) -> None:
        self._inner = inner
        self._temporary_dir = temporary_dir

    def missing(self, digests: Iterable[Digest]) -> set[Digest]:
        """See BlobStore. What `inner` only claims to have is found out by `open`."""
        return self._inner.missing(digests)

    def open(self, digest: Digest) -> BinaryIO:
        """See BlobStore."""
        sha256 = hashlib.sha256()
        size = 0
        spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=self._temporary_dir)  # noqa: SIM115
        try:
            with self._inner.open(digest) as stream:
                while size <= digest.size and (data := stream.read(_CHUNK)):
                    sha256.update(data)
                    size += len(data)
                    spool.write(data)
            if size != digest.size or sha256.hexdigest() != digest.sha256:
                raise BlobMissing(digest, "a store answered with other content")  # noqa: TRY301
            spool.seek(0)
        except BaseException:
            spool.close()
            raise
        return cast("BinaryIO", spool)

    def put_file(self, path: str, digest: Digest) -> None:
        """See BlobStore."""
        if (actual := digest_file(path)) != digest:
            raise BlobMismatch(digest, actual)
        self._inner.put_file(path, digest)
