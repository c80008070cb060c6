"""VerifyingBlobStore: no byte of altered content is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelbuild.cache.blob_store import BlobMissing
from modelbuild.cache.memory import InMemoryBlobStore
from modelbuild.cache.verifying import VerifyingBlobStore
from modelbuild.digest import digest_bytes


def test_content_too_large_for_memory_is_verified_on_disk(tmp_path: Path) -> None:
    content = os.urandom(9 << 20)
    inner = InMemoryBlobStore()
    digest = inner.put_bytes(content)
    store = VerifyingBlobStore(inner, str(tmp_path))
    with store.open(digest) as stream:
        assert stream.read() == content
    inner.contents[digest] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(BlobMissing):
        store.open(digest)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    inner = InMemoryBlobStore()
    digest = digest_bytes(b"short")
    inner.contents[digest] = b"short" + bytes(50 << 20)
    with pytest.raises(BlobMissing):
        VerifyingBlobStore(inner).open(digest)
