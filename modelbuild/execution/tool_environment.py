"""ToolEnvironments: the isolated environments of tools, made once and kept in the cache.

An environment is made when the first action that needs it is about to run, or in the background when such an
action is coming up. What it is, is in the key of the action; where it lies and when it was made is not.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from modelbuild.cache.environment_store import EnvironmentStore
from modelbuild.cache.file_system import sync_file_system
from modelbuild.cache.storage_failure import storage_failure
from modelbuild.errors import EnvironmentFailure, Interrupted
from modelbuild.execution.environment import machine_name
from modelbuild.execution.installer import Installer
from modelbuild.execution.lock_file import LockFile, read_lock
from modelbuild.execution.package_source import PackageSource
from modelbuild.tool import Lock

_POLL_S = 0.05
_AT_ONCE = 2
"""Environments made at the same time: an installer fetches in parallel by itself."""


@dataclass(frozen=True, slots=True)
class ToolEnvironment:
    """packages: the directory with the modules. python: its interpreter, None for another machine."""

    packages: str
    python: str | None


class ToolEnvironments:
    """Makes environments, or finds them made; keeps gc away from those in use. Thread-safe."""

    def __init__(
        self,
        cache_dir: str,
        source: Callable[[], PackageSource] | None = None,
        *,
        note: Callable[[str], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """source: asked when the first environment has to be made.

        note: told what takes long. warn: told what may be wrong.
        """
        self._store = EnvironmentStore(cache_dir)
        self._note = note
        self._warn = warn
        self._closed = threading.Event()
        self._source = source or PackageSource
        self._lock = threading.Lock()
        self._makers: concurrent.futures.ThreadPoolExecutor | None = None
        self._futures: dict[str, concurrent.futures.Future[ToolEnvironment]] = {}
        self._held: list[int] = []
        self._read: dict[Lock, LockFile] = {}

    def start(self, lock: Lock) -> concurrent.futures.Future[ToolEnvironment]:
        """Make it in the background, if need be. Raises what is wrong with the lock file itself."""
        file = self.read(lock)
        with self._lock:
            if self._closed.is_set():
                raise EnvironmentFailure("the build is being ended")
            future = self._futures.get(file.digest)
            if future is None:
                if self._makers is None:
                    self._makers = concurrent.futures.ThreadPoolExecutor(
                        _AT_ONCE, thread_name_prefix="environment"
                    )
                future = self._futures[file.digest] = self._makers.submit(self._get, file)
            return future

    def acquire(self, lock: Lock, cancel: threading.Event) -> ToolEnvironment:
        """The environment, which stays until `close`. Raises EnvironmentFailure, CacheError, Interrupted."""
        future = self.start(lock)
        while not cancel.is_set():
            done, _ = concurrent.futures.wait((future,), timeout=_POLL_S)
            if done:
                return future.result()
        raise Interrupted("waiting for a tool's environment was interrupted")

    def read(self, lock: Lock) -> LockFile:
        """The lock file, read once: what is installed is what was read."""
        with self._lock:
            if lock not in self._read:
                self._read[lock] = read_lock(lock, machine_name())
            return self._read[lock]

    def close(self) -> None:
        """End running installations, and let gc have what was in use."""
        with self._lock:
            self._closed.set()
        if self._makers is not None:
            self._makers.shutdown(wait=True, cancel_futures=True)
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def _get(self, file: LockFile) -> ToolEnvironment:
        path = self._store.path(file.digest)
        try:
            descriptor = self._hold(file)
        except OSError as error:
            raise storage_failure(error, path) from error
        with self._lock:
            self._held.append(descriptor)
        self._store.touch(file.digest)
        if file.lock.platform:
            return ToolEnvironment(f"{path}/packages", None)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return ToolEnvironment(f"{path}/venv/lib/{version}/site-packages", f"{path}/venv/bin/python")

    def _hold(self, file: LockFile) -> int:
        """A shared lock of an environment that is whole; makes it first if nobody else does."""
        while True:
            descriptor = self._store.open_lock(file.digest)
            try:
                while not self._closed.is_set():
                    if self._try(descriptor, fcntl.LOCK_SH):
                        if os.fstat(descriptor).st_nlink == 0:
                            break  # gc removed the lock with the environment: take the new one.
                        if self._is_whole(file):
                            kept, descriptor = descriptor, -1
                            return kept
                        if self._try(descriptor, fcntl.LOCK_EX) and not self._is_whole(file):
                            self._make(file, descriptor)
                            continue
                    time.sleep(_POLL_S)
                else:
                    raise Interrupted("making a tool's environment was interrupted")
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _try(self, descriptor: int, operation: int) -> bool:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_whole(self, file: LockFile) -> bool:
        if self._store.made(file.digest) is None:
            return False
        # The link leads to the Python that made it, which may have been removed since.
        return bool(file.lock.platform) or os.access(
            f"{self._store.path(file.digest)}/venv/bin/python", os.X_OK
        )

    def _make(self, file: LockFile, descriptor: int) -> None:
        path = self._store.path(file.digest)
        if os.path.exists(f"{path}/made.json"):
            self._warn(f"the environment of `{file.name}` was changed after it was made, and is made anew")
        count = len(file.detail)
        self._note(f"making environment `{file.name}`: {count} package{'s' if count != 1 else ''}")
        self._store.clear(file.digest)
        os.makedirs(path)
        try:
            installer = Installer(self._source(), self._closed)
            for warning in installer.install(file, path, descriptor):
                self._warn(warning)
            sync_file_system(path)
            self._store.finish(file.digest, {"lock": str(file.lock.path), "packages": dict(file.detail)})
        except BaseException:
            with contextlib.suppress(OSError):  # The next attempt clears it, too.
                self._store.clear(file.digest)
            raise
