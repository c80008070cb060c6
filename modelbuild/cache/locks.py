"""Locks between builds: one per action key, and one that keeps gc away from running builds."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from modelbuild.cache.storage_failure import storage_failure
from modelbuild.errors import CacheError

_POLL_S = 0.05
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)


@dataclass(slots=True)
class _LockFile:
    """The one descriptor this process has of a lock file, and the keys it holds."""

    fd: int | None
    pid: int
    held: set[str] = field(default_factory=set)


_FILES: dict[str, _LockFile] = {}
_GUARD = threading.Lock()


class KeyLocks:
    """A lock per key, between threads and processes; the kernel gives back those of a killed process.

    Each key is one byte of a file that stays empty (fcntl byte-range locks), at an offset of 62 bits of the
    key. The kernel drops all of a process's locks when it closes *any* descriptor of the file, so there is
    exactly one per process, and it stays open until the process ends.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)

    def try_acquire(self, key: str) -> bool:
        """Whether the lock of `key` (64 hex digits) is ours now. Never waits. Raises CacheError.

        On a read-only cache only this process's threads exclude each other: nobody can store a result.
        """
        with _GUARD:
            file = self._file()
            if key in file.held:
                return False
            if file.fd is not None:
                try:
                    fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _offset(key))
                except OSError as error:
                    if error.errno in (errno.EAGAIN, errno.EACCES):
                        return False
                    raise storage_failure(error, self._path) from error
            file.held.add(key)
            return True

    def release(self, key: str) -> None:
        """Gives back a lock that is held; KeyError otherwise."""
        with _GUARD:
            file = self._file()
            file.held.remove(key)
            if file.fd is not None:
                fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, _offset(key))

    def _file(self) -> _LockFile:
        file = _FILES.get(self._path)
        if file is None or file.pid != os.getpid():
            # After a fork the parent's locks are not ours; its descriptor may stay, closing it is harmless
            # to the parent but leaving it open costs nothing.
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise storage_failure(error, self._path) from error
                fd = None
            file = _FILES[self._path] = _LockFile(fd, os.getpid())
        return file


class UseLock:
    """Builds share it; gc has it alone. A killed process gives it back once its children are gone too."""

    def __init__(self, path: str) -> None:
        self._path = path

    @contextlib.contextmanager
    def shared(self, timeout_s: float = 600.0) -> Iterator[None]:
        """For the time of a build. Waits while gc runs. Raises CacheError when that takes too long."""
        with self._held(
            fcntl.LOCK_SH,
            timeout_s,
            CacheError(
                "the cache is being cleaned by another process", hint="try again when `cache gc` is done"
            ),
        ):
            yield

    @contextlib.contextmanager
    def exclusive(self, timeout_s: float = 10.0) -> Iterator[None]:
        """For the time of gc. Waits for running builds. Raises CacheError when that takes too long."""
        with self._held(
            fcntl.LOCK_EX,
            timeout_s,
            CacheError(
                "the cache is in use by a build",
                hint="try again when it has finished; blobs that a build needs are never collected",
            ),
        ):
            yield

    @contextlib.contextmanager
    def _held(self, operation: int, timeout_s: float, refusal: CacheError) -> Iterator[None]:
        fd = self._open()
        if fd is None:
            yield
            return
        try:
            deadline = time.monotonic() + timeout_s
            while True:
                try:
                    fcntl.flock(fd, operation | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise refusal from None
                    time.sleep(_POLL_S)
            try:
                yield
            finally:
                # Said, not left to close(): a forked child may still have the descriptor.
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def _open(self) -> int | None:
        """None where there is no lock file and none can be made: then there is nothing to collect either."""
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            try:
                return os.open(self._path, flags | os.O_CLOEXEC, 0o666)
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise storage_failure(error, self._path) from error
        return None


def _offset(key: str) -> int:
    return int(key[:16], 16) & ((1 << 62) - 1)
