"""The contract of every BlobStore."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelbuild.cache.blob_store import BlobMismatch, BlobMissing, BlobStore
from modelbuild.digest import Digest, digest_bytes

CONTENTS = [
    b"",
    b"a",
    b"content\n" * 1000,
    os.urandom((1 << 20) - 1),
    os.urandom(1 << 20),
    os.urandom(3 << 20),
]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda c: f"{len(c)} bytes")
def test_what_is_put_is_found(
    blob_store: BlobStore, some_file: Callable[[bytes], tuple[str, Digest]], content: bytes
) -> None:
    path, digest = some_file(content)
    assert blob_store.missing([digest]) == {digest}
    blob_store.put_file(path, digest)
    assert blob_store.missing([digest]) == set()
    with blob_store.open(digest) as stream:
        assert stream.read() == content
    with open(path, "rb") as stream:
        assert stream.read() == content, "put_file leaves the file alone"


def test_missing_tells_which(blob_store: BlobStore, some_file: Callable[[bytes], tuple[str, Digest]]) -> None:
    path, here = some_file(b"here")
    gone = digest_bytes(b"gone")
    blob_store.put_file(path, here)
    assert blob_store.missing([here, gone]) == {gone}
    assert blob_store.missing([]) == set()


def test_open_of_what_is_not_there_raises(blob_store: BlobStore) -> None:
    gone = digest_bytes(b"gone")
    with pytest.raises(BlobMissing) as raised:
        blob_store.open(gone)
    assert raised.value.digest == gone


def test_content_under_another_digest_is_refused(
    blob_store: BlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    path, _ = some_file(b"one thing")
    other = digest_bytes(b"another")
    with pytest.raises(BlobMismatch):
        blob_store.put_file(path, other)
    assert blob_store.missing([other]) == {other}


def test_putting_twice_is_fine(
    blob_store: BlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    path, digest = some_file(b"again")
    blob_store.put_file(path, digest)
    blob_store.put_file(path, digest)
    with blob_store.open(digest) as stream:
        assert stream.read() == b"again"


@pytest.mark.parametrize("damaged", [None, b"", b"conten", b"CONTENT", b"content and more"])
def test_damage_is_noticed_and_mended(
    damageable: tuple[BlobStore, Callable[[Digest, bytes | None], None]],
    some_file: Callable[[bytes], tuple[str, Digest]],
    damaged: bytes | None,
) -> None:
    blob_store, damage = damageable
    path, digest = some_file(b"content")
    blob_store.put_file(path, digest)
    damage(digest, damaged)
    with pytest.raises(BlobMissing):
        blob_store.open(digest)
    blob_store.put_file(path, digest)
    with blob_store.open(digest) as stream:
        assert stream.read() == b"content"


def test_threads_may_put_the_same_and_different_blobs(
    blob_store: BlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    files = [some_file(f"blob {i % 10}".encode() * 100) for i in range(80)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: blob_store.put_file(*file), files))
    assert blob_store.missing(digest for _, digest in files) == set()
    for path, digest in files:
        with blob_store.open(digest) as stream, open(path, "rb") as original:
            assert stream.read() == original.read()
