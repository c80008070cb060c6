"""Environments in a cache directory: when they count as whole, and what gc does with them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from modelbuild.cache.environment_store import EnvironmentStore
from modelbuild.cache.gc import collect, stats
from modelbuild.digest import digest_bytes

NOW = 2_000_000_000.0
DAY = 86_400.0
SIZE = 1 << 20


class Store:
    """Environments of one file each, made by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = str(root / "cache")
        collect(self.cache, now=NOW)  # Makes the cache.
        self.store = EnvironmentStore(self.cache)

    def digest(self, name: str) -> str:
        return digest_bytes(name.encode()).sha256

    def make(self, name: str, days_ago: float, *, link: Path | None = None, finish: bool = True) -> str:
        digest = self.digest(name)
        packages = Path(self.store.path(digest)) / "packages"
        packages.mkdir(parents=True)
        if link is not None:
            os.link(link, packages / "file")
        else:
            (packages / "file").write_bytes(os.urandom(SIZE))
        if finish:
            self.store.finish(digest, {})
            os.utime(f"{self.store.path(digest)}/used", (NOW - days_ago * DAY,) * 2)
        return digest

    @property
    def left(self) -> list[str]:
        names = {self.digest(name): name for name in ("a", "b", "c")}
        return sorted(names[digest] for digest in self.store.digests())


@pytest.fixture
def made(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_what_was_not_finished_is_none(made: Store) -> None:
    digest = made.make("a", 1, finish=False)
    assert made.store.made(digest) is None
    assert collect(made.cache, now=NOW).environments_removed == 1
    assert made.left == []


@pytest.mark.parametrize("what", ["content", "new", "gone", "marker"])
def test_what_was_changed_is_none(made: Store, what: str) -> None:
    digest = made.make("a", 1)
    assert made.store.made(digest) is not None
    folder = Path(made.store.path(digest)) / "packages"
    folder.chmod(0o700)
    if what == "content":
        (folder / "file").chmod(0o600)
        (folder / "file").write_bytes(b"x")
    elif what == "new":
        (folder / "another").touch()
    elif what == "gone":
        (folder / "file").unlink()
    else:
        (folder.parent / "made.json").write_text("{")
    assert made.store.made(digest) is None


def test_it_is_read_only(made: Store) -> None:
    folder = Path(made.store.path(made.make("a", 1))) / "packages"
    assert not folder.stat().st_mode & 0o222
    assert not (folder / "file").stat().st_mode & 0o222


def test_a_file_of_others_keeps_its_mode(made: Store) -> None:
    theirs = made.root / "theirs"
    theirs.write_bytes(b"x")
    made.make("a", 1, link=theirs)
    assert theirs.stat().st_mode & 0o200


@pytest.mark.parametrize(("days", "left"), [(0.5, []), (1.5, ["a"]), (2.5, ["a", "b"])])
def test_old_ones_go(made: Store, days: float, left: list[str]) -> None:
    made.make("a", 1)
    made.make("b", 2)
    report = collect(made.cache, max_age_s=days * DAY, now=NOW)
    assert made.left == left
    assert (report.environments_kept, report.environments_removed) == (len(left), 2 - len(left))
    assert report.bytes_freed >= SIZE * (2 - len(left))


def test_the_least_recently_used_go_until_the_rest_fits(made: Store) -> None:
    for name, days in (("a", 1), ("b", 3), ("c", 2)):
        made.make(name, days)
    collect(made.cache, max_size=int(2.5 * SIZE), now=NOW)
    assert made.left == ["a", "c"]


def test_what_others_link_to_is_no_burden(made: Store) -> None:
    theirs = made.root / "theirs"
    theirs.write_bytes(os.urandom(SIZE))
    made.make("a", 1, link=theirs)
    found = stats(made.cache, now=NOW)
    assert found.environments == 1
    assert found.environment_bytes < SIZE / 2
    assert found.shared_bytes == SIZE
    collect(made.cache, max_size=SIZE // 2, now=NOW)
    assert made.left == ["a"]


def test_what_environments_share_counts_once(made: Store) -> None:
    first = made.make("a", 1)
    made.make("b", 2, link=Path(made.store.path(first)) / "packages" / "file")
    assert SIZE <= stats(made.cache, now=NOW).environment_bytes < 1.5 * SIZE
    report = collect(made.cache, max_age_s=1.5 * DAY, now=NOW)
    assert made.left == ["a"]
    assert report.bytes_freed < SIZE / 2
    assert report.bytes_kept >= SIZE


def test_one_in_use_stays(made: Store) -> None:
    digest = made.make("a", 9)
    user = made.store.open_lock(digest)
    fcntl.flock(user, fcntl.LOCK_SH)
    try:
        report = collect(made.cache, max_age_s=DAY, now=NOW)
        assert (report.environments_removed, report.environments_kept) == (0, 1)
        assert made.store.made(digest) is not None
    finally:
        os.close(user)
    assert collect(made.cache, max_age_s=DAY, now=NOW).environments_removed == 1
