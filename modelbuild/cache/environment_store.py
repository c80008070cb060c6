"""EnvironmentStore: the environments of tools in a cache directory, whoever makes them.

    <cache>/environments/<digest>/       one environment; `made.json` comes last, without it there is none
    <cache>/environments/<digest>/used   its mtime is when the environment was last used
    <cache>/environments/locks/<digest>  flock: shared by who uses it, exclusive to make and to remove it

An environment is made at its final place, because paths are written into it. What a killed build left has no
`made.json`, and is cleared before the next attempt. A lock goes with its process; an installer that outlives
modelbuild inherits the lock, so that nobody clears what it still writes to.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelbuild.cache.atomic_file import remove, replace_file

MADE = "made.json"
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class EnvironmentUse:
    """An environment on disk, for gc. files: (device, inode) -> (bytes, links in it, links anywhere)."""

    digest: str
    used_s: float
    files: Mapping[tuple[int, int], tuple[int, int, int]]


class EnvironmentStore:
    """Paths, locks and markers below `<cache>/environments/`."""

    def __init__(self, cache_dir: str) -> None:
        self.root = f"{cache_dir}/environments"

    def path(self, digest: str) -> str:
        """Where the environment lies, or will."""
        return f"{self.root}/{digest}"

    def open_lock(self, digest: str) -> int:
        """A descriptor of the lock file, not locked yet. Raises OSError."""
        os.makedirs(f"{self.root}/locks", exist_ok=True)
        return os.open(f"{self.root}/locks/{digest}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def made(self, digest: str) -> dict[str, Any] | None:
        """What `made.json` says; None when there is no whole environment, or its files have changed."""
        path = self.path(digest)
        try:
            with open(f"{path}/{MADE}", "rb") as stream:
                data: dict[str, Any] = json.loads(stream.read())
        except (OSError, ValueError):
            return None
        if data.get("schema") != _SCHEMA or data.get("digest") != digest:
            return None
        return data if data.get("state") == state(path) else None

    def finish(self, digest: str, data: Mapping[str, Any]) -> None:
        """Make it read-only and write `made.json`. Raises OSError."""
        path = self.path(digest)
        _make_read_only(path)
        content = {"schema": _SCHEMA, "digest": digest, "state": state(path), **data}
        self.touch(digest)
        replace_file(f"{path}/{MADE}", json.dumps(content, indent=1).encode(), temporary_dir=path)

    def touch(self, digest: str) -> None:
        """Say that it is used now."""
        with contextlib.suppress(OSError):  # A read-only cache has no gc either.
            path = f"{self.path(digest)}/used"
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
            os.utime(path)

    def clear(self, digest: str) -> None:
        """Remove the environment; its lock is held exclusively. Raises OSError."""
        path = self.path(digest)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}/{MADE}")  # First: from here on it is no environment.
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
        if os.path.lexists(path):
            shutil.rmtree(path)

    def remove(self, digest: str) -> bool:
        """Remove it unless somebody uses or makes it; whether it is gone."""
        fd = self.open_lock(digest)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self.clear(digest)
            remove(f"{self.root}/locks/{digest}")
            return True
        finally:
            os.close(fd)

    def digests(self) -> list[str]:
        """Every environment, whole or not."""
        try:
            names = os.listdir(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if len(name) == 64)

    def unfinished(self) -> list[str]:
        """Those that are being made, or were when their build was killed."""
        return [each for each in self.digests() if not os.path.exists(f"{self.path(each)}/{MADE}")]

    def uses(self) -> Iterator[EnvironmentUse]:
        """Every environment with its files; one that was never finished was used at the beginning of time."""
        for digest in self.digests():
            files: dict[tuple[int, int], tuple[int, int, int]] = {}
            for _, status in _files(self.path(digest)):
                key = (status.st_dev, status.st_ino)
                links = files[key][1] if key in files else 0
                files[key] = (status.st_blocks * 512, links + 1, status.st_nlink)
            yield EnvironmentUse(digest, self._used_s(digest), files)

    def _used_s(self, digest: str) -> float:
        if not os.path.exists(f"{self.path(digest)}/{MADE}"):
            return 0.0
        try:
            return os.stat(f"{self.path(digest)}/used").st_mtime
        except FileNotFoundError:
            return 0.0


def state(path: str) -> str:
    """A digest of names, sizes and mtimes of an environment's files.

    An installer makes hardlinks to its own cache, and who edits the other link edits ours.
    """
    digest = hashlib.sha256()
    for name, status in sorted((file[len(path) :], status) for file, status in _files(path)):
        if name not in (f"/{MADE}", "/used") and "/__pycache__/" not in name:
            digest.update(
                f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
    return digest.hexdigest()


def _files(path: str) -> Iterator[tuple[str, os.stat_result]]:
    pending = [path]
    while pending:
        folder = pending.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield entry.path, entry.stat(follow_symlinks=False)


def _make_read_only(path: str) -> None:
    """Files with links elsewhere keep their mode: it is the others' mode, too."""
    with os.scandir(path) as entries:
        tops = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for top in tops:
        for folder, _, names in os.walk(top):
            for name in names:
                file = f"{folder}/{name}"
                status = os.lstat(file)
                if status.st_nlink == 1 and not os.path.islink(file):
                    os.chmod(file, status.st_mode & 0o555)
            os.chmod(folder, 0o555)  # noqa: S103 - anyone may read it
