"""A hit counts only if all of it is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.cache.completeness import CompleteActionCache, output_blobs
from modelbuild.cache.memory import InMemoryActionCache, InMemoryBlobStore
from modelbuild.digest import digest_bytes
from modelbuild.tree import Tree, TreeFile

KEY = digest_bytes(b"key").sha256

files = st.builds(
    TreeFile,
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.binary(max_size=6).map(digest_bytes),
    st.booleans(),
)


@given(st.lists(files, unique_by=lambda file: file.path, max_size=8))
def test_trees_come_back_and_equal_trees_have_equal_digests(listed: list[TreeFile]) -> None:
    tree = Tree(tuple(listed))
    assert Tree.decode(tree.encode()) == Tree(tuple(sorted(listed)))
    assert Tree(tuple(reversed(listed))).digest == tree.digest


class _Stored:
    def __init__(self) -> None:
        self.blobs = InMemoryBlobStore()
        tree = Tree(tuple(TreeFile(f"{n}", self.blobs.put_bytes(b"part %d" % n)) for n in range(3)))
        self.manifest = self.blobs.put_bytes(tree.encode())
        self.file = self.blobs.put_bytes(b"file")
        self.log = self.blobs.put_bytes(b"log")
        self.inner = InMemoryActionCache()
        self.cache = CompleteActionCache(self.inner, self.blobs)
        self.result = ActionResult(
            {"out/model": OutputDigest("tree", self.manifest), "out/file": OutputDigest("file", self.file)},
            self.log,
        )
        self.cache.put(KEY, self.result)


def test_a_complete_entry_is_a_hit() -> None:
    stored = _Stored()
    assert stored.cache.get(KEY) == stored.result
    assert set(output_blobs(stored.result, stored.blobs)) == set(stored.blobs.contents)


@pytest.mark.parametrize("lost", [b"file", b"part 1"])
def test_an_entry_without_one_of_its_blobs_is_dropped(lost: bytes) -> None:
    stored = _Stored()
    del stored.blobs.contents[digest_bytes(lost)]
    assert stored.cache.get(KEY) is None
    assert stored.inner.get(KEY) is None
    assert stored.cache.dropped == {KEY: ("out/file",) if lost == b"file" else ("out/model",)}


@pytest.mark.parametrize("manifest", [None, b"", b"[]", b"{}", b'["modelbuild-tree-2",[]]', b"\xff"])
def test_an_entry_without_its_manifest_is_dropped(manifest: bytes | None) -> None:
    stored = _Stored()
    if manifest is None:
        del stored.blobs.contents[stored.manifest]
    else:
        stored.blobs.contents[stored.manifest] = manifest
    assert stored.cache.get(KEY) is None
    assert stored.inner.get(KEY) is None


def test_a_lost_log_trains_no_model_again() -> None:
    stored = _Stored()
    del stored.blobs.contents[stored.log]
    hit = stored.cache.get(KEY)
    assert hit is not None
    assert hit.outputs == stored.result.outputs
    assert hit.log is None
