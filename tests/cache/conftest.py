"""Stores of every kind, and small file systems to fill and to freeze."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelbuild.cache import hashing
from modelbuild.cache.action_cache import ActionCache
from modelbuild.cache.blob_store import BlobStore
from modelbuild.cache.completeness import CompleteActionCache
from modelbuild.cache.disk import DiskBlobStore
from modelbuild.cache.disk_action_cache import DiskActionCache
from modelbuild.cache.fact_index import Fact
from modelbuild.cache.layered import LayeredActionCache, LayeredBlobStore
from modelbuild.cache.memory import InMemoryActionCache, InMemoryBlobStore
from modelbuild.cache.verifying import VerifyingBlobStore
from modelbuild.digest import Digest, digest_bytes


@dataclass
class Subject:
    """A store under test; `damage` replaces the stored bytes of a digest, None deletes them."""

    store: BlobStore
    damage: Callable[[Digest, bytes | None], None] | None


def overwrite(path: str, content: bytes | None) -> None:
    if content is None:
        os.unlink(path)
        return
    os.chmod(path, 0o644)
    with open(path, "wb") as stream:
        stream.write(content)


def _disk(root: Path) -> Subject:
    store = DiskBlobStore(str(root))

    def damage(digest: Digest, content: bytes | None) -> None:
        overwrite(f"{root}/cas/{digest.sha256[:2]}/{digest.sha256}", content)

    return Subject(store, damage)


def _memory() -> Subject:
    store = InMemoryBlobStore()

    def damage(digest: Digest, content: bytes | None) -> None:
        if content is None:
            del store.contents[digest]
        else:
            store.contents[digest] = content

    return Subject(store, damage)


@pytest.fixture
def blob_store(subject: Subject) -> BlobStore:
    return subject.store


@pytest.fixture(params=["disk", "disk over disk", "verifying memory", "verifying disk"])
def damageable(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[BlobStore, Callable[[Digest, bytes | None], None]]:
    """A store that notices damage, and what replaces the stored bytes of a digest (None: deletes them)."""
    subject = _subject(request.param, tmp_path)
    assert subject.damage is not None
    return subject.store, subject.damage


@pytest.fixture(
    params=["memory", "disk", "disk over memory", "disk over disk", "verifying memory", "verifying disk"]
)
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return _subject(request.param, tmp_path)


def _subject(kind: str, tmp_path: Path) -> Subject:
    if kind == "memory":
        return Subject(_memory().store, None)  # It never goes bad by itself, so it does not check.
    if kind == "disk":
        return _disk(tmp_path / "disk")
    if kind == "disk over memory":
        return Subject(LayeredBlobStore(_disk(tmp_path / "fast").store, _memory().store), None)
    if kind == "disk over disk":
        fast, slow = _disk(tmp_path / "fast"), _disk(tmp_path / "slow")
        assert fast.damage is not None
        assert slow.damage is not None
        damages = (fast.damage, slow.damage)

        def both(digest: Digest, content: bytes | None) -> None:
            for damage in damages:
                damage(digest, content)

        return Subject(LayeredBlobStore(fast.store, slow.store, str(tmp_path)), both)
    inner = _memory() if kind == "verifying memory" else _disk(tmp_path / "disk")
    return Subject(VerifyingBlobStore(inner.store), inner.damage)


@pytest.fixture(params=["memory", "disk", "layered", "complete"])
def action_cache(request: pytest.FixtureRequest, tmp_path: Path) -> ActionCache:
    if request.param == "memory":
        return InMemoryActionCache()
    if request.param == "disk":
        return DiskActionCache(str(tmp_path))
    if request.param == "layered":
        return LayeredActionCache(DiskActionCache(str(tmp_path)), InMemoryActionCache())
    blobs = InMemoryBlobStore()
    blobs.put_bytes(b"output")
    return CompleteActionCache(DiskActionCache(str(tmp_path)), blobs)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    yield from _mounted(tmp_path / "small", "size=1m,nr_inodes=2000")


@pytest.fixture
def freezable(tmp_path: Path) -> Iterator[Path]:
    """A file system that `freeze` makes read-only."""
    yield from _mounted(tmp_path / "freezable", "size=8m")


def _mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"mounting is refused: {mount.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def freeze() -> Callable[[Path], None]:
    def remount(path: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)

    return remount


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How content was read: `sha256` for each full hash, `xxh3` for each fast check."""
    calls: list[str] = []
    observe, unchanged = hashing.observe, hashing.unchanged_content

    def counted_observe(fd: int, seed: int) -> Fact:
        calls.append("sha256")
        return observe(fd, seed)

    def counted_unchanged(fd: int, known: Fact, seed: int) -> Fact | None:
        calls.append("xxh3")
        return unchanged(fd, known, seed)

    monkeypatch.setattr(hashing, "observe", counted_observe)
    monkeypatch.setattr(hashing, "unchanged_content", counted_unchanged)
    return calls


@pytest.fixture
def some_file(tmp_path: Path) -> Callable[[bytes], tuple[str, Digest]]:
    """Makes a file and gives its path and digest."""
    count = iter(range(1_000_000))

    def make(content: bytes) -> tuple[str, Digest]:
        path = tmp_path / f"some-file-{next(count)}"
        path.write_bytes(content)
        return str(path), digest_bytes(content)

    return make
