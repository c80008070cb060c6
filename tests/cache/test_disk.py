"""DiskBlobStore beyond the contract: adopting, damage, crashes, full and frozen disks."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelbuild.cache import fact_index
from modelbuild.cache.blob_store import BlobMissing
from modelbuild.cache.disk import DiskBlobStore
from modelbuild.cache.fact_index import FactIndex
from modelbuild.digest import Digest, digest_bytes
from modelbuild.errors import ActionFailed, CacheError, ExitCode


@pytest.fixture
def store(tmp_path: Path) -> DiskBlobStore:
    return _open(tmp_path / "cache")


def _open(root: Path) -> DiskBlobStore:
    root.mkdir(exist_ok=True)
    return DiskBlobStore(str(root), FactIndex(f"{root}/index.sqlite"))


def _close(store: DiskBlobStore) -> None:
    store._facts.close()


def _blob(store: DiskBlobStore, digest: Digest, *, executable: bool = False) -> str:
    path = store.path(digest, executable=executable)
    assert path is not None
    return path


def _mode(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_adopt_moves_the_file_in_without_copying(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    path, digest = some_file(b"model")
    inode = os.stat(path).st_ino
    assert store.adopt(path) == digest
    blob = _blob(store, digest)
    assert not os.path.exists(path)
    assert os.stat(blob).st_ino == inode
    assert _mode(blob) == 0o444
    assert blob == f"{store.root}/cas/{digest.sha256[:2]}/{digest.sha256}"


def test_a_blob_that_is_there_is_not_written_again(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    first, digest = some_file(b"model")
    second, _ = some_file(b"model")
    store.adopt(first)
    before = os.lstat(_blob(store, digest))
    assert store.adopt(second) == digest
    assert store.put_bytes(b"model") == digest
    assert not os.path.exists(second)
    after = os.lstat(_blob(store, digest))
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_executable_and_plain_are_two_files(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    path, digest = some_file(b"#!/bin/sh\n")
    store.adopt(path, executable=True)
    executable, plain = _blob(store, digest, executable=True), _blob(store, digest)
    assert _mode(executable) == 0o555
    assert _mode(plain) == 0o444
    assert executable == plain + ".x"
    assert Path(plain).read_bytes() == Path(executable).read_bytes()


def test_an_executable_blob_alone_is_readable(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    path, digest = some_file(b"#!/bin/sh\n")
    store.adopt(path, executable=True)
    assert store.missing([digest]) == set()
    assert store.read(digest) == b"#!/bin/sh\n"


def test_hardlinked_files_are_copied(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]], tmp_path: Path
) -> None:
    path, digest = some_file(b"shared")
    other = tmp_path / "other-name"
    os.link(path, other)
    store.adopt(path)
    other.write_bytes(b"damage")
    assert store.read(digest) == b"shared"
    assert not os.path.exists(path)


def test_a_symlink_is_adopted_as_its_target_which_stays(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]], tmp_path: Path
) -> None:
    path, digest = some_file(b"target")
    link = tmp_path / "link"
    link.symlink_to(path)
    assert store.adopt(str(link)) == digest
    assert not link.is_symlink()
    assert Path(path).read_bytes() == b"target"
    assert stat.S_ISREG(os.lstat(_blob(store, digest)).st_mode)


def test_adopting_from_another_file_system_copies(store: DiskBlobStore) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == Path(store.root).stat().st_dev:
        pytest.skip("there is no second file system")
    path = other / f"modelbuild-test-{os.getpid()}"
    path.write_bytes(b"far away")
    digest = store.adopt(str(path), executable=True)
    assert not path.exists()
    assert _mode(_blob(store, digest, executable=True)) == 0o555
    assert store.read(digest) == b"far away"
    assert os.listdir(store.temporary) == []


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_not_a_file_is_refused(store: DiskBlobStore, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(ActionFailed):
        store.adopt(str(path))


def test_a_hit_costs_no_reading(
    tmp_path: Path, some_file: Callable[[bytes], tuple[str, Digest]], observed: list[str]
) -> None:
    store = _open(tmp_path / "cache")
    digests = [store.adopt(some_file(f"{i}".encode())[0]) for i in range(5)]
    _close(store)
    observed.clear()
    again = _open(tmp_path / "cache")
    assert all(again.path(digest) for digest in digests)
    assert observed == []


def test_facts_that_were_not_written_cost_one_hash(
    tmp_path: Path, some_file: Callable[[bytes], tuple[str, Digest]], observed: list[str]
) -> None:
    store = _open(tmp_path / "cache")
    digest = store.adopt(some_file(b"killed before flush")[0])
    observed.clear()
    again = _open(tmp_path / "cache")
    assert again.path(digest)
    assert again.path(digest)
    assert observed == ["sha256"]


def test_a_copied_cache_is_checked_by_xxh3_only(
    tmp_path: Path, some_file: Callable[[bytes], tuple[str, Digest]], observed: list[str]
) -> None:
    store = _open(tmp_path / "cache")
    digest = store.adopt(some_file(b"restored")[0])
    _close(store)
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    observed.clear()
    copy = _open(tmp_path / "copy")
    assert copy.read(digest) == b"restored"
    assert observed == ["xxh3"]


def test_edits_that_keep_size_and_mtime_are_noticed(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    path, digest = some_file(b"0123456789")
    store.adopt(path)
    blob = _blob(store, digest)
    before = os.stat(blob)
    os.chmod(blob, 0o644)
    with open(blob, "r+b") as stream:
        stream.write(b"x")
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.path(digest) is None
    assert not os.path.exists(blob)
    [kept] = os.listdir(f"{store.root}/quarantine")
    assert kept.startswith(digest.sha256)


def test_a_touched_blob_is_good_and_protected_again(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    path, digest = some_file(b"content")
    store.adopt(path)
    blob = _blob(store, digest)
    os.chmod(blob, 0o666)
    os.utime(blob)
    assert store.path(digest) == blob
    assert _mode(blob) == 0o444


def test_a_hardlink_to_a_blob_does_not_hurt(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]], tmp_path: Path
) -> None:
    path, digest = some_file(b"content")
    store.adopt(path)
    os.link(_blob(store, digest), tmp_path / "materialised")
    assert store.read(digest) == b"content"


@pytest.mark.parametrize("replacement", ["symlink", "directory", "fifo"])
def test_something_else_in_the_place_of_a_blob_is_missing(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]], replacement: str
) -> None:
    path, digest = some_file(b"content")
    copy, _ = some_file(b"content")
    store.adopt(path)
    blob = _blob(store, digest)
    os.unlink(blob)
    if replacement == "symlink":
        os.symlink(copy, blob)
    elif replacement == "directory":
        os.mkdir(blob)
    else:
        os.mkfifo(blob)
    assert store.path(digest) is None
    assert store.adopt(copy) == digest
    assert store.read(digest) == b"content"


def test_a_wrong_size_is_another_digest(store: DiskBlobStore) -> None:
    digest = store.put_bytes(b"content")
    wrong = Digest(digest.sha256, digest.size + 1)
    assert store.missing([wrong]) == {wrong}
    with pytest.raises(BlobMissing):
        store.open(wrong)
    assert store.read(digest) == b"content"


def test_quarantine_takes_both_files_away(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    path, digest = some_file(b"content")
    store.adopt(path, executable=True)
    _blob(store, digest)
    store.quarantine(digest)
    assert store.missing([digest]) == {digest}
    assert len(os.listdir(f"{store.root}/quarantine")) == 2


def test_what_was_not_synced_is_hashed_after_a_reboot(
    tmp_path: Path,
    some_file: Callable[[bytes], tuple[str, Digest]],
    observed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = _open(tmp_path / "cache")
    synced = store.adopt(some_file(b"synced")[0])
    store.sync()
    unsynced = store.adopt(some_file(b"unsynced")[0])
    lost = store.adopt(some_file(b"lost")[0])
    _close(store)
    blob = f"{store.cas}/{lost.sha256[:2]}/{lost.sha256}"
    monkeypatch.setattr(fact_index, "boot_id", lambda: b"another boot    ")
    # A power cut: the name is there, the content never reached the disk, and the fact says it did.
    after = _open(tmp_path / "cache")
    fact = after._facts.get(lost.sha256)
    assert fact is None
    os.chmod(blob, 0o644)
    os.truncate(blob, 0)
    observed.clear()
    assert after.path(synced)
    assert observed == []
    assert after.path(unsynced)
    assert after.path(lost) is None
    assert observed == ["sha256", "sha256"]


def test_processes_may_adopt_the_same_blobs(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_adopt_many, args=(str(root), number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = _open(root)
    for number in range(50):
        assert store.read(digest_bytes(b"blob %d" % number)) == b"blob %d" % number
    assert os.listdir(store.temporary) == []


def _adopt_many(root: str, number: int) -> None:
    os.makedirs(root, exist_ok=True)
    store = DiskBlobStore(root, FactIndex(f"{root}/index.sqlite"))
    for index in range(50):
        path = f"{root}/output-{number}-{index}"
        Path(path).write_bytes(b"blob %d" % index)
        store.adopt(path)
        store.put_bytes(b"blob %d" % (49 - index))
        if index % 10 == 0:
            store._facts.flush()
    store._facts.close()


def test_threads_may_adopt_the_same_blobs(
    store: DiskBlobStore, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    files = [some_file(b"blob %d" % (i % 7)) for i in range(140)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda file: store.adopt(file[0]), files)) == [digest for _, digest in files]
    assert store.missing(digest for _, digest in files) == set()
    assert not os.path.exists(f"{store.root}/quarantine")


_PUT_FOREVER = """
import os, sys
from modelbuild.cache.disk import DiskBlobStore
from modelbuild.cache.fact_index import FactIndex
root = sys.argv[1]
store = DiskBlobStore(root, FactIndex(root + "/index.sqlite"))
print("ready", flush=True)
number = 0
while True:
    number += 1
    data = b"%d" % number * 50_000
    with open(root + "/output", "wb") as stream:
        stream.write(data)
    if number % 2:
        store.adopt(root + "/output")
    else:
        store.put_bytes(data)
    store._facts.flush()
"""


def test_killed_at_any_moment_leaves_only_whole_blobs(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    root.mkdir()
    for delay in (0.0, 0.013, 0.029, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", _PUT_FOREVER, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    store = _open(root)
    blobs = [path for path in (root / "cas").glob("??/*") if len(path.parent.name) == 2]
    for blob in blobs:
        assert digest_bytes(blob.read_bytes()).sha256 == blob.name
        assert store.path(digest_bytes(blob.read_bytes()))
    assert not (root / "quarantine").exists()


def test_a_full_disk_is_a_cache_error_and_leaves_no_half_file(
    small_disk: Path, some_file: Callable[[bytes], tuple[str, Digest]]
) -> None:
    store = _open(small_disk)
    kept = store.put_bytes(b"kept")
    path, big = some_file(os.urandom(2 << 20))
    for attempt in (
        lambda: store.put_bytes(os.urandom(2 << 20)),
        lambda: store.put_file(path, big),
        lambda: store.adopt(path),
    ):
        with pytest.raises(CacheError) as raised:
            attempt()
        assert raised.value.exit_code == ExitCode.ENVIRONMENT
        assert "cache gc" in (raised.value.hint or "")
        assert os.listdir(store.temporary) == []
    assert Path(path).exists(), "an output that could not be stored is still there"
    assert store.missing([big, kept]) == {big}
    assert store.read(kept) == b"kept"


def test_a_disk_without_inodes_is_a_cache_error(small_disk: Path) -> None:
    store = _open(small_disk)

    def fill() -> None:
        for number in range(5000):
            store.put_bytes(b"%d" % number)

    with pytest.raises(CacheError):
        fill()
    assert os.listdir(store.temporary) == []


def test_a_read_only_cache_answers_and_refuses(
    freezable: Path,
    freeze: Callable[[Path], None],
    some_file: Callable[[bytes], tuple[str, Digest]],
    observed: list[str],
) -> None:
    store = _open(freezable)
    digest = store.put_bytes(b"content")
    script = store.adopt(some_file(b"#!/bin/sh\n")[0], executable=True)
    _close(store)
    freeze(freezable)
    observed.clear()
    frozen = _open(freezable)
    assert frozen.read(digest) == b"content"
    assert frozen.path(script, executable=True)
    assert observed == []
    assert frozen.adopt(some_file(b"content")[0]) == digest, "what is there already is no write"
    with pytest.raises(CacheError, match="read-only"):
        frozen.put_bytes(b"new")
    with pytest.raises(CacheError, match="read-only"):
        frozen.adopt(some_file(b"new")[0])
    _close(frozen)
