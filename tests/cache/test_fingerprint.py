"""FingerprintIndex: when the recorded digest stands, and when it must not."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelbuild.cache.fact_index import FactIndex
from modelbuild.cache.fingerprint import FingerprintIndex
from modelbuild.digest import Digest, digest_bytes, digest_file


def _open(directory: Path) -> FingerprintIndex:
    return FingerprintIndex(FactIndex(str(directory / "index.sqlite")))


def _close(index: FingerprintIndex) -> None:
    index._facts.close()


def _source(directory: Path, content: bytes) -> str:
    path = directory / "source.txt"
    path.write_bytes(content)
    return str(path)


def _settle(index: FingerprintIndex, path: str) -> None:
    """Reads the file when it is no longer racily clean."""
    index.digest(path)
    time.sleep(0.11)
    index.digest(path)


def test_an_unchanged_file_is_not_read(tmp_path: Path, observed: list[str]) -> None:
    index = _open(tmp_path)
    path = _source(tmp_path, b"content")
    _settle(index, path)
    _close(index)
    observed.clear()
    again = _open(tmp_path)
    assert again.digest(path) == digest_bytes(b"content")
    again.load_all()
    assert again.digest(path, os.stat(path)) == digest_bytes(b"content")
    assert observed == []
    _close(again)


def test_a_racily_clean_file_is_read_again(tmp_path: Path, observed: list[str]) -> None:
    index = _open(tmp_path)
    path = _source(tmp_path, b"content")
    index.digest(path)
    observed.clear()
    assert index.digest(path) == digest_bytes(b"content")
    assert observed == ["xxh3"], "it could have changed within the same tick of the clock"


def test_same_stat_within_a_tick_is_still_noticed(tmp_path: Path) -> None:
    """The change that git calls racy: size, mtime and ctime are those of the file that was hashed."""
    index = _open(tmp_path)
    path = _source(tmp_path, b"content")
    index.digest(path)
    fact = index._facts.get(path)
    assert fact is not None
    _source(tmp_path, b"CONTENT")
    now = os.stat(path)
    same = (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev)
    index._facts.put(path, type(fact)(same, now.st_ctime_ns + 1_000_000, fact.digest, fact.xxh3))
    assert index.digest(path) == digest_bytes(b"CONTENT")


def test_touch_and_checkout_do_not_hash_again(tmp_path: Path, observed: list[str]) -> None:
    index = _open(tmp_path)
    path = _source(tmp_path, b"content")
    _settle(index, path)
    observed.clear()
    os.utime(path)
    assert index.digest(path) == digest_bytes(b"content")
    shutil.copy(path, tmp_path / "fresh")
    os.replace(tmp_path / "fresh", path)
    assert index.digest(path) == digest_bytes(b"content")
    assert observed == ["xxh3", "xxh3"]


def test_an_edit_is_hashed(tmp_path: Path) -> None:
    index = _open(tmp_path)
    path = _source(tmp_path, b"content")
    _settle(index, path)
    for content in (b"CONTENT", b"longer content", b"", b"content"):
        _source(tmp_path, content)
        assert index.digest(path) == digest_bytes(content)


def test_an_edit_that_restores_mtime_is_noticed(tmp_path: Path) -> None:
    index = _open(tmp_path)
    path = _source(tmp_path, b"content")
    _settle(index, path)
    before = os.stat(path)
    with open(path, "r+b") as stream:
        stream.write(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index.digest(path) == digest_bytes(b"CONTENT")


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    content = os.urandom((3 << 20) + 17)
    path = _source(tmp_path, content)
    index = _open(tmp_path)
    assert index.digest(path) == digest_bytes(content)
    os.utime(path)
    assert index.digest(path) == digest_bytes(content)
    _source(tmp_path, content[:-1] + bytes([content[-1] ^ 1]))
    assert index.digest(path) != digest_bytes(content)


def test_a_file_that_changes_while_it_is_read_is_never_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelbuild.cache import hashing

    path = _source(tmp_path, b"0" * (2 << 20))
    real = hashing.hash_open_file
    moment = iter(range(100))

    def interfering(fd: int, size: int, seed: int) -> tuple[Digest, bytes]:
        answer = real(fd, size, seed)
        with open(path, "r+b") as stream:
            stream.write(b"%d" % next(moment))
        return answer

    monkeypatch.setattr(hashing, "hash_open_file", interfering)
    index = _open(tmp_path)
    index.digest(path)
    monkeypatch.undo()
    time.sleep(0.11)
    assert index.digest(path) == digest_file(path)


def test_symlinks_are_followed_and_retargeting_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    link = tmp_path / "link"
    link.symlink_to("a")
    index = _open(tmp_path)
    assert index.digest(str(link)) == digest_bytes(b"a")
    link.unlink()
    link.symlink_to("b")
    assert index.digest(str(link)) == digest_bytes(b"b")


def test_names_that_are_no_unicode_work(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff.txt")
    with open(path, "wb") as stream:
        stream.write(b"content")
    index = _open(tmp_path)
    assert index.digest(os.fsdecode(path)) == digest_bytes(b"content")
    _source(tmp_path, b"other")
    index.digest(str(tmp_path / "source.txt"))
    _close(index)
    assert index._facts.database.notes == []


def test_threads_agree(tmp_path: Path) -> None:
    paths = []
    for number in range(300):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(b"%d" % number)
        paths.append(str(path))
    index = _open(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(index.digest, paths * 2))
    assert digests == [digest_bytes(b"%d" % number) for number in range(300)] * 2
    _close(index)
    again = _open(tmp_path)
    assert [again.digest(path) for path in paths] == digests[:300]
    _close(again)
