"""gc, verify and stats: what goes, what stays, what is found out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.cache.gc import collect, stats, verify
from modelbuild.cache.local import LocalCache
from modelbuild.digest import Digest, digest_bytes
from modelbuild.errors import CacheError
from modelbuild.tree import Tree, TreeFile

NOW = 2_000_000_000.0
DAY = 86_400.0


def _key(name: str) -> str:
    return digest_bytes(name.encode()).sha256


class Filled:
    """A cache with three entries of 100 KB each, used 1, 2 and 3 days ago; `shared` is in two of them."""

    def __init__(self, root: str) -> None:
        self.root = root
        with LocalCache.open(root) as cache:
            shared = cache.blobs.put_bytes(b"s" * 50_000)
            self.shared = shared
            self.own = {name: cache.blobs.put_bytes(name.encode() * 50_000) for name in "abc"}
            for name, other in (("a", shared), ("b", shared), ("c", cache.blobs.put_bytes(b"t" * 50_000))):
                tree = Tree((TreeFile("x", self.own[name]), TreeFile("y", other)))
                self.put(cache, name, tree)
            self.use("a", 1)
            self.use("b", 2)
            self.use("c", 3)

    def put(self, cache: LocalCache, name: str, tree: Tree) -> None:
        manifest = cache.blobs.put_bytes(tree.encode())
        cache.actions.put(_key(name), ActionResult({"out/model": OutputDigest("tree", manifest)}))

    def use(self, name: str, days_ago: float) -> None:
        key = _key(name)
        os.utime(f"{self.root}/ac/{key[:2]}/{key}", (NOW - days_ago * DAY,) * 2)

    def hits(self) -> str:
        with LocalCache.open(self.root) as cache:
            return "".join(name for name in "abc" if cache.entries.peek(_key(name)))

    def sound(self, name: str) -> bool:
        with LocalCache.open(self.root) as cache:
            return cache.actions.get(_key(name)) is not None

    def blob(self, digest: Digest) -> str:
        return f"{self.root}/cas/{digest.sha256[:2]}/{digest.sha256}"


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return Filled(str(tmp_path / "cache"))


def test_without_limits_everything_that_is_needed_stays(filled: Filled) -> None:
    report = collect(filled.root, now=NOW)
    assert (report.entries_removed, report.blobs_removed) == (0, 0)
    assert filled.hits() == "abc"
    assert all(filled.sound(name) for name in "abc")


@pytest.mark.parametrize(("days", "left"), [(0.5, ""), (1.5, "a"), (2.5, "ab"), (3.5, "abc")])
def test_old_entries_go(filled: Filled, days: float, left: str) -> None:
    report = collect(filled.root, max_age_s=days * DAY, now=NOW)
    assert filled.hits() == left
    assert all(filled.sound(name) for name in left)
    assert report.entries_removed == 3 - len(left)


@pytest.mark.parametrize(
    ("size", "left"), [(0, ""), (99_000, ""), (101_000, "a"), (151_000, "ab"), (252_000, "abc")]
)
def test_the_least_recently_used_go_until_the_rest_fits(filled: Filled, size: int, left: str) -> None:
    report = collect(filled.root, max_size=size, now=NOW)
    assert filled.hits() == left
    assert all(filled.sound(name) for name in left)
    assert report.bytes_kept <= size
    assert report.bytes_kept == stats(filled.root).bytes


def test_a_shared_blob_stays_while_one_entry_needs_it(filled: Filled) -> None:
    collect(filled.root, max_age_s=1.5 * DAY, now=NOW)
    assert os.path.exists(filled.blob(filled.shared))
    assert not os.path.exists(filled.blob(filled.own["b"]))


def test_blobs_that_nothing_needs_go(filled: Filled) -> None:
    with LocalCache.open(filled.root) as cache:
        stray = cache.blobs.put_bytes(b"stray" * 1000)
    assert stats(filled.root).reclaimable == 5000
    report = collect(filled.root, now=NOW)
    assert (report.blobs_removed, report.bytes_freed) == (1, 5000)
    assert not os.path.exists(filled.blob(stray))


def test_logs_of_kept_entries_stay(filled: Filled) -> None:
    with LocalCache.open(filled.root) as cache:
        log = cache.blobs.put_bytes(b"log")
        output = OutputDigest("file", cache.blobs.put_bytes(b"x"))
        cache.actions.put(_key("logged"), ActionResult({"out": output}, log))
    collect(filled.root)
    assert os.path.exists(filled.blob(log))


def test_what_killed_builds_left_goes(filled: Filled) -> None:
    root = Path(filled.root)
    for path in (
        "cas/tmp/half",
        "ac/tmp/half",
        "work/key/root/in",
        f"scratch/{_key('a')}/step",
        "scratch/unfinished/step",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"12345")
    os.chmod(root / "work/key/root", 0o555)
    collect(filled.root)
    assert not (root / "cas/tmp/half").exists()
    assert not (root / "ac/tmp/half").exists()
    assert not (root / "work/key").exists()
    assert not (root / f"scratch/{_key('a')}").exists(), "its action has finished"
    assert (root / "scratch/unfinished/step").exists(), "it may go on"
    os.utime(root / "scratch/unfinished/step", (1, 1))
    os.utime(root / "scratch/unfinished", (1, 1))
    collect(filled.root)
    assert not (root / "scratch/unfinished").exists()


def test_gc_waits_for_builds(filled: Filled) -> None:
    with LocalCache.open(filled.root), pytest.raises(CacheError, match="in use by a build"):
        collect(filled.root, max_size=0, wait_s=0.0)
    assert filled.hits() == "abc"
    started = threading.Event()
    finish = threading.Event()

    def build() -> None:
        with LocalCache.open(filled.root):
            started.set()
            finish.wait()

    thread = threading.Thread(target=build)
    thread.start()
    started.wait()
    threading.Timer(0.1, finish.set).start()
    assert collect(filled.root, max_size=0, wait_s=30.0).entries_removed == 3
    thread.join()


def test_gc_refuses_a_read_only_cache(freezable: Path, freeze: Callable[[Path], None]) -> None:
    filled = Filled(str(freezable / "cache"))
    freeze(freezable)
    with pytest.raises(CacheError, match="read-only"):
        collect(filled.root)
    assert stats(filled.root).entries == 3
    assert verify(filled.root).damaged == ()


def test_verify_of_a_sound_cache(filled: Filled) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(filled.root, progress=lambda done, total: seen.append((done, total)))
    assert (report.damaged, report.dropped) == ((), ())
    assert report.blobs == 8
    assert seen == [(number, 8) for number in range(1, 9)]


def test_verify_finds_what_no_stat_shows(filled: Filled) -> None:
    """A bit that rotted on the disk: size, mtime, ctime and inode are what they were."""
    blob = filled.own["b"]
    path = filled.blob(blob)
    os.chmod(path, 0o644)
    with open(path, "r+b") as stream:
        stream.write(b"B")
    with LocalCache.open(filled.root) as cache:
        fact = cache.facts.get(blob.sha256)
        assert fact is not None
        stat = os.stat(path)
        rotten = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
        cache.facts.put(blob.sha256, type(fact)(rotten, fact.checked_ns, fact.digest, fact.xxh3))
        assert cache.blobs.path(blob), "the stat says nothing"
    report = verify(filled.root)
    assert report.damaged == (f"{blob.sha256[:2]}/{blob.sha256}",)
    assert report.dropped == (_key("b"),)
    assert filled.hits() == "ac"
    assert stats(filled.root).quarantined == 1
    assert verify(filled.root).damaged == ()


@pytest.mark.parametrize("damage", ["truncate", "delete"])
def test_verify_drops_entries_of_lost_blobs(filled: Filled, damage: str) -> None:
    path = filled.blob(filled.shared)
    if damage == "delete":
        os.unlink(path)
    else:
        os.chmod(path, 0o644)
        os.truncate(path, 10)
    report = verify(filled.root)
    assert len(report.damaged) == (damage == "truncate")
    assert sorted(report.dropped) == sorted([_key("a"), _key("b")])
    assert filled.hits() == "c"


def test_damaged_entries_and_manifests_do_not_stop_gc(filled: Filled) -> None:
    key = _key("a")
    Path(f"{filled.root}/ac/{key[:2]}/{key}").write_bytes(b"damage")
    Path(f"{filled.root}/cas/ab").mkdir(exist_ok=True)
    Path(f"{filled.root}/cas/ab/not-a-blob").write_bytes(b"?")
    Path(f"{filled.root}/cas/stranger").write_bytes(b"?")
    collect(filled.root)
    assert filled.hits() == "bc"
    assert verify(filled.root).damaged == ()


def test_stats_by_age(filled: Filled) -> None:
    filled.use("c", 100)
    report = stats(filled.root, now=NOW)
    assert (report.entries, report.blobs, report.reclaimable) == (3, 8, 0)
    assert report.by_age == ((1.0, 1), (7.0, 1), (30.0, 0), (float("inf"), 1))
