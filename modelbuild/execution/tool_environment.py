"""ToolEnvironments: the isolated environments of tools, made once and kept in the cache.

An environment is made when the first action that needs it is about to run, or in the background when such an
action is coming up. What it is, is in the key of the action; where it lies and when it was made is not.
"""

from __future__ import annotations

import concurrent.futures
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modelbuild.execution.environment import machine_name
from modelbuild.execution.environment_keeper import EnvironmentKeeper
from modelbuild.execution.installer import Installer
from modelbuild.execution.lock_file import LockFile, read_lock
from modelbuild.execution.package_source import PackageSource
from modelbuild.execution.sysroot import Sysroot, SysrootRecipe
from modelbuild.execution.sysroot_lock import SysrootLock
from modelbuild.tool import Lock


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
        self._keeper = EnvironmentKeeper(cache_dir, note=note, warn=warn)
        self._source = source or PackageSource
        self._lock = threading.Lock()
        self._read: dict[Lock, LockFile] = {}

    def start(self, lock: Lock) -> concurrent.futures.Future[ToolEnvironment]:
        """Make it in the background, if need be. Raises what is wrong with the lock file itself."""
        return self._keeper.start(LockRecipe(self.read(lock), self._source))

    def acquire(self, lock: Lock, cancel: threading.Event) -> ToolEnvironment:
        """The environment, which stays until `close`. Raises EnvironmentFailure, CacheError, Interrupted."""
        return self._keeper.acquire(LockRecipe(self.read(lock), self._source), cancel)

    def start_sysroot(self, lock: SysrootLock) -> concurrent.futures.Future[Sysroot]:
        """Make a device's file system in the background, if need be."""
        return self._keeper.start(SysrootRecipe(lock))

    def acquire_sysroot(self, lock: SysrootLock, cancel: threading.Event) -> Sysroot:
        """A device's file system, likewise."""
        return self._keeper.acquire(SysrootRecipe(lock), cancel)

    def read(self, lock: Lock) -> LockFile:
        """The lock file, read once: what is installed is what was read."""
        with self._lock:
            if lock not in self._read:
                self._read[lock] = read_lock(lock, machine_name())
            return self._read[lock]

    def close(self) -> None:
        """End running installations, and let gc have what was in use."""
        self._keeper.close()


@dataclass(frozen=True)
class LockRecipe:
    """A Recipe: what a lock pins, installed by uv."""

    file: LockFile
    source: Callable[[], PackageSource]

    @property
    def digest(self) -> str:
        """Of lock, platform and Python."""
        return self.file.digest

    @property
    def name(self) -> str:
        """`tvm/requirements.lock`."""
        return self.file.name

    @property
    def path(self) -> str:
        """The lock file."""
        return str(self.file.lock.path)

    @property
    def packages(self) -> Mapping[str, str]:
        """Name -> what is pinned."""
        return self.file.detail

    def make(self, directory: str, lock_descriptor: int, cancel: threading.Event) -> Sequence[str]:
        """See Recipe."""
        return Installer(self.source(), cancel).install(self.file, directory, lock_descriptor)

    def is_usable(self, directory: str) -> bool:
        """The link leads to the Python that made it, which may have been removed since."""
        return bool(self.file.lock.platform) or os.access(f"{directory}/venv/bin/python", os.X_OK)

    def open(self, directory: str) -> ToolEnvironment:
        """Where its packages lie."""
        if self.file.lock.platform:
            return ToolEnvironment(f"{directory}/packages", None)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return ToolEnvironment(
            f"{directory}/venv/lib/{version}/site-packages", f"{directory}/venv/bin/python"
        )
