"""FactIndex: a damaged, lost, locked or frozen index costs time and never an answer."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.cache import database as database_module
from modelbuild.cache import fact_index
from modelbuild.cache.fact_index import Fact, FactIndex
from modelbuild.digest import Digest, digest_bytes


def _fact(number: int) -> Fact:
    return Fact((number, 2, 3, 1 << 63, 5), 6, Digest(digest_bytes(b"%d" % number).sha256, number), b"x" * 16)


def _filled(path: str, count: int = 40) -> None:
    index = FactIndex(path)
    for number in range(count):
        index.put(f"/source/{number}", _fact(number))
        index.put(f"{number:064x}", _fact(number))
    index.close()


def _same(fact: Fact | None, number: int) -> bool:
    expected = _fact(number)
    return fact is not None and (fact.signature, fact.checked_ns, fact.digest, fact.xxh3) == (
        expected.signature, expected.checked_ns, expected.digest, expected.xxh3,
    )  # fmt: skip


@pytest.mark.parametrize("load", [None, True, False])
def test_facts_come_back(tmp_path: Path, load: bool | None) -> None:
    path = str(tmp_path / "index.sqlite")
    _filled(path)
    index = FactIndex(path)
    if load is not None:
        index.load(sources=load)
    for number in range(40):
        assert _same(index.get(f"/source/{number}"), number)
        assert _same(index.get(f"{number:064x}"), number)
    assert index.get("/source/unknown") is None
    index.close()


def test_many_lookups_read_everything_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "index.sqlite")
    _filled(path, 400)
    index = FactIndex(path)
    assert all(_same(index.get(f"/source/{number}"), number) for number in range(400))
    assert index._loaded == {True: True, False: False}
    index.close()


def test_removed_facts_stay_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "index.sqlite")
    _filled(path)
    index = FactIndex(path)
    index.remove("/source/1")
    index.load(sources=True)
    assert index.get("/source/1") is None
    index.close()
    again = FactIndex(path)
    assert again.get("/source/1") is None
    assert again.get("/source/2") is not None
    again.close()


def test_facts_of_another_boot_count_only_if_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "index.sqlite")
    index = FactIndex(path)
    index.put("/synced", _fact(1))
    index.sync_done(index.unsynced())
    index.put("/unsynced", _fact(2))
    index.put("/late", _fact(3))
    before = index.unsynced()
    index.put("/late", _fact(4))
    del before["/unsynced"]
    index.sync_done(before)
    index.close()
    same_boot = FactIndex(path)
    assert same_boot.get("/unsynced") is not None
    same_boot.close()
    monkeypatch.setattr(fact_index, "boot_id", lambda: b"B" * 16)
    other_boot = FactIndex(path)
    assert _same(other_boot.get("/synced"), 1)
    assert other_boot.get("/unsynced") is None
    assert other_boot.get("/late") is None, "it was learnt after the sync began"
    other_boot.close()


def test_each_index_draws_its_own_seed(tmp_path: Path) -> None:
    first, second = FactIndex(str(tmp_path / "1.sqlite")), FactIndex(str(tmp_path / "2.sqlite"))
    assert first.seed != second.seed
    assert FactIndex(None).seed != FactIndex(None).seed
    first.close()
    second.close()
    again = FactIndex(str(tmp_path / "1.sqlite"))
    assert again.seed == first.seed
    again.close()


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bits_never_give_a_wrong_fact(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "index.sqlite"
    _filled(str(path))
    content = bytearray(path.read_bytes())
    choose = random.Random(seed)
    for _ in range(1 + seed * 4):
        content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)
    index = FactIndex(str(path))
    for number in range(40):
        for key in (f"/source/{number}", f"{number:064x}"):
            fact = index.get(key)
            assert fact is None or _same(fact, number)
    index.put("/new", _fact(7))
    index.close()
    again = FactIndex(str(path))
    fact = again.get("/new")
    assert fact is None or _same(fact, 7)
    again.close()


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + bytes(4000)])
def test_a_damaged_file_is_made_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(content)
    index = FactIndex(str(path))
    assert index.get("/source") is None
    index.put("/source", _fact(1))
    index.close()
    again = FactIndex(str(path))
    assert _same(again.get("/source"), 1)
    again.close()
    assert len(index.database.notes) == (1 if content else 0)


def test_a_directory_in_its_place_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.mkdir()
    index = FactIndex(str(path))
    assert index.get("/source") is None
    index.put("/source", _fact(1))
    index.flush()
    assert index.get("/source") is not None
    index.close()
    assert any("not remembered" in note for note in index.database.notes)


def test_deleted_while_in_use_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    _filled(str(path))
    index = FactIndex(str(path))
    assert index.get("/source/1") is not None
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    index.put("/source/new", _fact(1))
    index.close()
    again = FactIndex(str(path))
    assert again.get("/source/1") is None
    again.close()


def test_a_locked_file_drops_writes_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_BUSY_S", 0.05)
    path = str(tmp_path / "index.sqlite")
    _filled(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    index = FactIndex(path)
    assert _same(index.get("/source/1"), 1)
    index.put("/source/new", _fact(9))
    index.flush()
    assert _same(index.get("/source/new"), 9), "this process still knows"
    other.execute("COMMIT")
    other.close()
    index.close()
    assert any("busy" in note for note in index.database.notes)


def test_two_processes_write_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "index.sqlite")
    first, second = FactIndex(path), FactIndex(path)
    assert first.seed == second.seed
    first.put("/a", _fact(1))
    second.put("/b", _fact(2))
    first.flush()
    second.flush()
    first.close()
    second.close()
    third = FactIndex(path)
    assert _same(third.get("/a"), 1)
    assert _same(third.get("/b"), 2)
    third.close()


def test_a_read_only_index_answers_and_forgets(freezable: Path, freeze: Callable[[Path], None]) -> None:
    path = str(freezable / "index.sqlite")
    _filled(path)
    freeze(freezable)
    index = FactIndex(path)
    assert _same(index.get("/source/1"), 1)
    index.put("/new", _fact(1))
    index.flush()
    assert _same(index.get("/new"), 1)
    index.close()


def test_a_read_only_cache_without_an_index(freezable: Path, freeze: Callable[[Path], None]) -> None:
    freeze(freezable)
    index = FactIndex(str(freezable / "index.sqlite"))
    assert index.get("/source") is None
    index.put("/new", _fact(1))
    index.close()


def test_a_full_disk_drops_writes(small_disk: Path) -> None:
    path = str(small_disk / "index.sqlite")
    _filled(path)
    (small_disk / "filler").write_bytes(bytes(max(0, os.statvfs(small_disk).f_bavail * 4096)))
    index = FactIndex(path)
    for number in range(2000):
        index.put(f"/more/{number}", _fact(number))
    index.flush()
    assert index.get("/source/1") is None or _same(index.get("/source/1"), 1)
    assert _same(index.get("/more/7"), 7)
    index.close()
    assert len(index.database.notes) == 1
