"""Layered stores: what moves between the layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.actions.result import ActionResult
from modelbuild.cache.blob_store import BlobMissing
from modelbuild.cache.disk import DiskBlobStore
from modelbuild.cache.layered import LayeredActionCache, LayeredBlobStore
from modelbuild.cache.memory import InMemoryActionCache, InMemoryBlobStore
from modelbuild.cache.verifying import VerifyingBlobStore
from modelbuild.digest import digest_bytes
from modelbuild.errors import CacheError

KEY = digest_bytes(b"key").sha256


def test_what_only_the_slow_layer_has_is_fetched_once(tmp_path: Path) -> None:
    fast, slow = DiskBlobStore(str(tmp_path)), InMemoryBlobStore()
    store = LayeredBlobStore(fast, slow, str(tmp_path))
    digest = slow.put_bytes(b"content")
    assert store.missing([digest]) == set()
    with store.open(digest) as stream:
        assert stream.read() == b"content"
    slow.contents.clear()
    assert fast.read(digest) == b"content"
    assert [name for name in (tmp_path).iterdir() if name.name.startswith("fetch-")] == []


def test_fetch_brings_many() -> None:
    fast, slow = InMemoryBlobStore(), InMemoryBlobStore()
    digests = [slow.put_bytes(b"%d" % number) for number in range(5)]
    LayeredBlobStore(fast, slow).fetch(digests)
    assert fast.missing(digests) == set()
    with pytest.raises(BlobMissing):
        LayeredBlobStore(fast, slow).fetch([digest_bytes(b"nowhere")])


def test_a_lying_slow_layer_poisons_nothing(tmp_path: Path) -> None:
    fast, slow = DiskBlobStore(str(tmp_path)), InMemoryBlobStore()
    digest = digest_bytes(b"content")
    slow.contents[digest] = b"another"
    with pytest.raises(CacheError):
        LayeredBlobStore(fast, slow, str(tmp_path)).open(digest)
    with pytest.raises(BlobMissing):
        LayeredBlobStore(fast, VerifyingBlobStore(slow), str(tmp_path)).open(digest)
    assert fast.missing([digest]) == {digest}


def test_results_found_in_the_slow_layer_stay_in_the_fast_one() -> None:
    fast, slow = InMemoryActionCache(), InMemoryActionCache()
    slow.put(KEY, ActionResult({}))
    assert LayeredActionCache(fast, slow).get(KEY) == ActionResult({})
    assert fast.get(KEY) == ActionResult({})


def test_the_fast_layer_is_asked_first() -> None:
    fast, slow = InMemoryActionCache(), InMemoryActionCache()
    fast.put(KEY, ActionResult({}, duration_s=1.0))
    slow.put(KEY, ActionResult({}, duration_s=2.0))
    assert LayeredActionCache(fast, slow).get(KEY) == ActionResult({}, duration_s=1.0)
