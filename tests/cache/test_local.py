"""LocalCache: its directory, made, checked, refused and frozen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.cache.local import LocalCache
from modelbuild.cache.trace import TraceRow
from modelbuild.digest import digest_bytes
from modelbuild.errors import CacheError
from modelbuild.tree import Tree, TreeFile

KEY = digest_bytes(b"key").sha256


def test_a_new_cache_is_tagged_and_ignored_by_git(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "cache"
    with LocalCache.open(root) as cache:
        assert not cache.read_only
    assert (root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert (root / ".gitignore").read_text().startswith("*\n")
    assert (root / "format").read_text() == "1\n"


def test_the_committed_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    for name in ("README.md", ".gitignore", "CACHEDIR.TAG"):
        (tmp_path / name).write_text("mine")
    with LocalCache.open(tmp_path):
        pass
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == "mine"


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CacheError, match="is not a modelbuild cache"):
        LocalCache(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("content", ["2\n", "nonsense"])
def test_another_format_is_refused(tmp_path: Path, content: str) -> None:
    LocalCache(tmp_path).close()
    (tmp_path / "format").write_text(content)
    with pytest.raises(CacheError, match="has format"):
        LocalCache(tmp_path)


def test_a_format_that_was_never_written_through_is_written_again(tmp_path: Path) -> None:
    LocalCache(tmp_path).close()
    (tmp_path / "format").write_text("")  # what a machine that lost its power leaves
    LocalCache(tmp_path).close()
    assert (tmp_path / "format").read_text() == "1\n"


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_in_its_place_is_a_cache_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CacheError):
        LocalCache(f"{tmp_path}/cache{below}")


def test_old_temporary_files_are_swept_and_young_ones_are_not(tmp_path: Path) -> None:
    with LocalCache.open(tmp_path) as cache:
        cache.blobs.put_bytes(b"x")
    old, young = tmp_path / "cas/tmp/old", tmp_path / "cas/tmp/young"
    old.write_text("")
    young.write_text("")
    os.utime(old, (time.time() - 100_000,) * 2)
    with LocalCache.open(tmp_path):
        pass
    assert not old.exists()
    assert young.exists()


def test_a_build_and_the_next_one(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"source")
    with LocalCache.open(tmp_path / "cache") as cache:
        assert cache.fingerprints.digest(str(source)) == digest_bytes(b"source")
        result = ActionResult({"out/x": OutputDigest("file", cache.blobs.put_bytes(b"output"))})
        cache.actions.put(KEY, result)
        cache.sync()
    with LocalCache.open(tmp_path / "cache") as cache:
        assert cache.actions.get(KEY) == result
        assert cache.notes == []


def test_directories_for_actions(tmp_path: Path) -> None:
    with LocalCache.open(tmp_path) as cache:
        assert os.path.isdir(cache.scratch_dir(KEY))
        assert cache.scratch_dir(KEY) == cache.scratch_dir(KEY)
        assert os.path.isdir(os.path.dirname(cache.log_path(KEY)))


def test_explain_reads_trees_and_knows_what_vanished(tmp_path: Path) -> None:
    with LocalCache.open(tmp_path) as cache:
        trees = [
            Tree((TreeFile("a", cache.blobs.put_bytes(text)), TreeFile("b", cache.blobs.put_bytes(b"same"))))
            for text in (b"old", b"new")
        ]
        old, new = (cache.blobs.put_bytes(tree.encode()).sha256 for tree in trees)
        components = dict.fromkeys(("schema", "command", "tool", "inputs", "platform"), old)
        row = TraceRow(
            "out", "//a:b", "Train", 0.0, KEY, components, {"inputs": {"in/d": ["tree", old]}}, "executed"
        )
        detail = {"inputs": {"in/d": ["tree", new]}}
        assert "(1 of 2 files: a)" in cache.explain(row, {**components, "inputs": new}, detail)
        missing = OutputDigest("file", digest_bytes(b"never stored"))
        cache.entries.put(KEY, ActionResult({"out/model": missing}))
        assert cache.actions.get(KEY) is None
        assert cache.explain(row, components, row.detail).startswith("`model` vanished from the cache")
        assert cache.explain(None, components, detail) == "never built here"


def test_a_read_only_cache_serves_hits(
    freezable: Path, freeze: Callable[[Path], None], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"source")
    root = freezable / "cache"
    with LocalCache.open(root) as cache:
        cache.fingerprints.digest(str(source))
        output = cache.blobs.put_bytes(b"output")
        result = ActionResult({"out/x": OutputDigest("file", output)})
        cache.actions.put(KEY, result)
    freeze(freezable)
    with LocalCache.open(root) as cache:
        assert cache.read_only
        assert cache.fingerprints.digest(str(source)) == digest_bytes(b"source")
        assert cache.actions.get(KEY) == result
        assert cache.blobs.path(output)
        assert cache.locks.try_acquire(KEY)
        cache.locks.release(KEY)
        with pytest.raises(CacheError, match="read-only"):
            cache.scratch_dir(KEY)
        cache.sync()


def test_a_read_only_place_without_a_cache_is_a_cache_error(
    freezable: Path, freeze: Callable[[Path], None]
) -> None:
    freeze(freezable)
    for root in (freezable, freezable / "cache"):
        with pytest.raises(CacheError, match="read-only"):
            LocalCache(root)


def test_a_full_disk_without_a_cache_is_a_cache_error(small_disk: Path) -> None:
    (small_disk / "lost+found").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    with pytest.raises(CacheError, match="no space"):
        LocalCache(small_disk)


_OPEN_AND_STORE = """
import sys
from modelbuild.cache.local import LocalCache
with LocalCache.open(sys.argv[1]) as cache:
    for number in range(20):
        cache.blobs.put_bytes(b"%d" % number)
        cache.flush()
    assert cache.notes == [], cache.notes
"""


def test_processes_may_make_one_cache_at_once(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    processes = [subprocess.Popen([sys.executable, "-c", _OPEN_AND_STORE, str(root)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with LocalCache.open(root) as cache:
        assert cache.blobs.missing(digest_bytes(b"%d" % number) for number in range(20)) == set()
        assert cache.notes == []
