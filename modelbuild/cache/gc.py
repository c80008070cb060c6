"""What keeps a cache directory small and sound: collect, verify, stats."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat as stat_module
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from modelbuild.actions.result import ActionResult
from modelbuild.cache.atomic_file import remove
from modelbuild.cache.blob_store import BlobMissing
from modelbuild.cache.completeness import vanished
from modelbuild.cache.disk import EXECUTABLE_SUFFIX
from modelbuild.cache.environment_store import EnvironmentStore
from modelbuild.cache.local import LocalCache, is_made
from modelbuild.digest import Digest
from modelbuild.errors import CacheError
from modelbuild.tree import Tree

SCRATCH_AGE_S = 14 * 86_400.0
"""How long the checkpoints of an action that nobody finished are kept."""

_HEX = frozenset("0123456789abcdef")
_TRASH_AGE_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class GcReport:
    """What `collect` did. Bytes are of blobs, of environments, and of what else it swept.

    Of an environment's files only those count that nothing outside of the cache links to.
    """

    entries_removed: int
    entries_kept: int
    blobs_removed: int
    bytes_freed: int
    blobs_kept: int
    bytes_kept: int
    environments_removed: int = 0
    environments_kept: int = 0


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found. damaged: file names below `cas/`, now in `quarantine/`. dropped: action keys."""

    blobs: int
    bytes: int
    damaged: tuple[str, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What is in a cache. by_age: (days, entries last used at most so long ago and not counted before).

    reclaimable: bytes that `collect` without limits would free. environment_bytes: what removing all
    environments would free. shared_bytes: their other files, which an installer's own cache holds, too.
    """

    entries: int
    blobs: int
    bytes: int
    by_age: tuple[tuple[float, int], ...]
    reclaimable: int
    quarantined: int
    environments: int = 0
    environment_bytes: int = 0
    shared_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """What stays or goes as a whole: a result, or an environment, which then stands for itself.

    blobs: what it needs, by names that others may share.
    """

    key: str
    used_s: float
    blobs: frozenset[str]
    is_environment: bool = False


@dataclass(frozen=True, slots=True)
class _BlobFile:
    name: str
    path: str
    size: int

    @property
    def sha256(self) -> str:
        return self.name.removesuffix(EXECUTABLE_SUFFIX)


def collect(
    root: str,
    *,
    max_size: int | None = None,
    max_age_s: float | None = None,
    now: float | None = None,
    wait_s: float = 10.0,
) -> GcReport:
    """Drops entries not used for `max_age_s`, and the least recently used until blobs fit `max_size` bytes.

    Then every blob that no entry rests on goes, and what killed builds left. Runs while no build does:
    raises CacheError when one is still running after `wait_s`.
    """
    if not is_made(root):
        return GcReport(0, 0, 0, 0, 0, 0)
    cache = LocalCache(root)
    if cache.read_only:
        raise CacheError(f"the cache `{cache.root}` is read-only: nothing can be collected")
    now = time.time() if now is None else now
    try:
        with cache.use.exclusive(wait_s):
            files = list(_blob_files(cache.root))
            sizes: dict[str, int] = {}
            for file in files:
                sizes[file.sha256] = sizes.get(file.sha256, 0) + file.size
            store = EnvironmentStore(cache.root)
            unfinished = sum(store.remove(digest) for digest in store.unfinished())
            environments, own = _environments(store)
            found = [*_entries(cache), *environments]
            entries = sorted(found, key=lambda entry: entry.used_s, reverse=True)
            oldest_s = None if max_age_s is None else now - max_age_s
            kept = _kept(entries, sizes | own, max_size, oldest_s)
            gone = []
            for entry in entries[len(kept) :]:
                if not entry.is_environment:
                    cache.entries.remove(entry.key)
                elif not store.remove(entry.key):
                    kept = [*kept, entry]  # `modelbuild run` uses it.
                    continue
                gone.append(entry)
            needed = {name for entry in kept for name in entry.blobs}
            swept = [file for file in files if file.sha256 not in needed]
            for file in swept:
                remove(file.path)
                cache.facts.remove(file.name)
            freed = sum(file.size for file in swept) + _sweep(cache, now)
            freed += sum(size for name, size in own.items() if name not in needed)
            return GcReport(
                entries_removed=sum(not entry.is_environment for entry in gone),
                entries_kept=sum(not entry.is_environment for entry in kept),
                blobs_removed=len(swept),
                bytes_freed=freed,
                blobs_kept=len(files) - len(swept),
                bytes_kept=sum(file.size for file in files)
                - sum(file.size for file in swept)
                + sum(size for name, size in own.items() if name in needed),
                environments_removed=unfinished + sum(entry.is_environment for entry in gone),
                environments_kept=sum(entry.is_environment for entry in kept),
            )
    finally:
        cache.close()


def verify(
    root: str, *, progress: Callable[[int, int], None] | None = None, threads: int = 2
) -> VerifyReport:
    """Hashes every blob again; quarantines what is wrong and drops the entries that rested on it.

    progress: called with (blobs done, blobs in all), from this thread. Builds may run meanwhile.
    """
    if not is_made(root):
        return VerifyReport(0, 0, (), ())
    with LocalCache.open(root) as cache:
        files = list(_blob_files(cache.root))

        def is_sound(file: _BlobFile) -> bool:
            return cache.blobs.recheck(file.name, file.path, Digest(file.sha256, file.size))

        damaged = []
        with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
            for number, (file, sound) in enumerate(zip(files, pool.map(is_sound, files), strict=True), 1):
                if not sound and not _was_collected(cache, file):
                    damaged.append(f"{file.name[:2]}/{file.name}")
                if progress is not None:
                    progress(number, len(files))
        dropped = []
        for key, _ in _entry_files(cache.root):
            result = cache.entries.peek(key)
            if result is None or vanished(result, cache.blobs):
                cache.entries.remove(key)
                dropped.append(key)
        return VerifyReport(len(files), sum(file.size for file in files), tuple(damaged), tuple(dropped))


def stats(root: str, *, now: float | None = None) -> CacheStats:
    """Counts what is in the cache, without reading blobs other than manifests. Makes none."""
    ages_days = (1.0, 7.0, 30.0, float("inf"))
    if not is_made(root):
        return CacheStats(0, 0, 0, tuple((days, 0) for days in ages_days), 0, 0)
    now = time.time() if now is None else now
    cache = LocalCache(root)
    try:
        files = list(_blob_files(cache.root))
        entries = list(_entries(cache))
        environments, own = _environments(EnvironmentStore(cache.root))
        needed = {sha256 for entry in entries for sha256 in entry.blobs}
        by_age = []
        lower = float("-inf")
        for days in ages_days:
            ages = ((now - entry.used_s) / 86_400.0 for entry in entries)
            by_age.append((days, sum(lower < age <= days for age in ages)))
            lower = days
        return CacheStats(
            entries=len(entries),
            blobs=len(files),
            bytes=sum(file.size for file in files),
            by_age=tuple(by_age),
            reclaimable=sum(file.size for file in files if file.sha256 not in needed),
            quarantined=len(_names(f"{cache.root}/quarantine")),
            environments=len(environments),
            environment_bytes=sum(own.values()),
            shared_bytes=_shared_bytes(EnvironmentStore(cache.root)),
        )
    finally:
        cache.close()


def _kept(
    entries: list[_Entry], sizes: dict[str, int], max_size: int | None, oldest_s: float | None
) -> list[_Entry]:
    """The longest run of entries, newest first, that is young and small enough."""
    total = 0
    counted: set[str] = set()
    for number, entry in enumerate(entries):
        if oldest_s is not None and entry.used_s < oldest_s:
            return entries[:number]
        fresh = entry.blobs - counted
        total += sum(sizes.get(sha256, 0) for sha256 in fresh)
        counted |= fresh
        if max_size is not None and total > max_size:
            return entries[:number]
    return entries


def _entries(cache: LocalCache) -> Iterator[_Entry]:
    """Every entry that can be read; unreadable ones, and ones without their manifests, are removed."""
    for key, used_s in _entry_files(cache.root):
        result = cache.entries.peek(key)
        if result is None:
            continue
        try:
            yield _Entry(key, used_s, frozenset(_blobs_of(result, cache)))
        except (BlobMissing, ValueError):
            cache.entries.remove(key)


def _environments(store: EnvironmentStore) -> tuple[list[_Entry], dict[str, int]]:
    """The environments, and the sizes in bytes of the files that nothing outside of them links to.

    Installers make hard links to their own cache: removing those frees nothing.
    """
    uses = list(store.uses())
    links: dict[tuple[int, int], int] = {}
    for use in uses:
        for file, (_, inside, _) in use.files.items():
            links[file] = links.get(file, 0) + inside
    sizes: dict[str, int] = {}
    entries = []
    for use in uses:
        names = {f"environment {use.digest}"}
        sizes[f"environment {use.digest}"] = 0
        for file, (size, inside, everywhere) in use.files.items():
            if inside == everywhere:
                sizes[f"environment {use.digest}"] += size
            elif links[file] == everywhere:
                name = f"file {file[0]}:{file[1]}"
                sizes[name] = size
                names.add(name)
        entries.append(_Entry(use.digest, use.used_s, frozenset(names), is_environment=True))
    return entries, sizes


def _shared_bytes(store: EnvironmentStore) -> int:
    """Bytes of files that environments share with something outside of the cache."""
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    for use in store.uses():
        for file, (size, inside, everywhere) in use.files.items():
            found[file] = (size, found.get(file, (0, 0, 0))[1] + inside, everywhere)
    return sum(size for size, inside, everywhere in found.values() if inside < everywhere)


def _blobs_of(result: ActionResult, cache: LocalCache) -> Iterator[str]:
    for output in result.outputs.values():
        yield output.digest.sha256
        if output.kind == "tree":
            yield from (f.digest.sha256 for f in Tree.decode(cache.blobs.read(output.digest)).files)
    if result.log is not None:
        yield result.log.sha256


def _entry_files(root: str) -> Iterator[tuple[str, float]]:
    """(key, when it was last used) of every file of the action cache."""
    for entry in _fan_out(f"{root}/ac"):
        with contextlib.suppress(FileNotFoundError):
            if _is_sha256(entry.name):
                yield entry.name, entry.stat(follow_symlinks=False).st_mtime


def _blob_files(root: str) -> Iterator[_BlobFile]:
    for entry in _fan_out(f"{root}/cas"):
        with contextlib.suppress(FileNotFoundError):
            if _is_sha256(entry.name.removesuffix(EXECUTABLE_SUFFIX)):
                yield _BlobFile(entry.name, entry.path, entry.stat(follow_symlinks=False).st_size)


def _fan_out(directory: str) -> Iterator[os.DirEntry[str]]:
    for name in _names(directory):
        if len(name) == 2 and _HEX.issuperset(name):
            try:
                with os.scandir(f"{directory}/{name}") as entries:
                    listed = list(entries)
            except (FileNotFoundError, NotADirectoryError):
                continue
            yield from listed


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_sha256(name: str) -> bool:
    return len(name) == 64 and _HEX.issuperset(name)


def _was_collected(cache: LocalCache, file: _BlobFile) -> bool:
    """Whether a blob that could not be verified is simply gone, rather than in quarantine."""
    return not any(name.startswith(f"{file.name}.") for name in _names(f"{cache.root}/quarantine"))


def _sweep(cache: LocalCache, now: float) -> int:
    """Removes what killed builds left, and scratch, logs and quarantine that grew old. Returns bytes."""
    freed = 0
    for directory, keep_s in (
        ("cas/tmp", 0.0),
        ("ac/tmp", 0.0),
        ("work", 0.0),
        ("scratch", SCRATCH_AGE_S),
        ("logs", _TRASH_AGE_S),
        ("quarantine", _TRASH_AGE_S),
    ):
        for name in _names(f"{cache.root}/{directory}"):
            path = f"{cache.root}/{directory}/{name}"
            with contextlib.suppress(FileNotFoundError):
                finished = directory == "scratch" and cache.entries.peek(name) is not None
                if finished or _newest_change(path) <= now - keep_s:
                    freed += _remove_tree(path)
    return freed


def _newest_change(path: str) -> float:
    """When the file, or anything directly in the directory, was last written."""
    newest = os.lstat(path).st_mtime
    if os.path.isdir(path) and not os.path.islink(path):
        with os.scandir(path) as entries:
            newest = max([newest, *(entry.stat(follow_symlinks=False).st_mtime for entry in entries)])
    return newest


def _remove_tree(path: str) -> int:
    """Removes a file or a directory, read-only or not. Returns the bytes of its files."""
    if not os.path.isdir(path) or os.path.islink(path):
        size = os.lstat(path).st_size
        remove(path)
        return size
    freed = 0
    for directory, _, names in os.walk(path):
        os.chmod(directory, stat_module.S_IRWXU)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                freed += os.lstat(f"{directory}/{name}").st_size
    shutil.rmtree(path, ignore_errors=True)
    return freed
