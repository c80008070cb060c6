"""EnvironmentKeeper: what is made once in `<cache>/environments/`, by a recipe, and kept while it is in use.

Nothing here knows what an environment holds: packages of a lock, or a device's file system. Two builds that
want the same one make it once; what a killed build left is never taken for one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from modelbuild.cache.environment_store import EnvironmentStore
from modelbuild.cache.file_system import sync_file_system
from modelbuild.cache.storage_failure import storage_failure
from modelbuild.errors import EnvironmentFailure, Interrupted

_POLL_S = 0.05
_AT_ONCE = 2
"""Environments made at the same time: an installer fetches in parallel by itself."""

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Recipe(Protocol[T_co]):
    """What an environment is made of, and how. Equal digests stand for equal environments."""

    @property
    def digest(self) -> str:
        """64 hex digits, over all that decides what is in it."""

    @property
    def name(self) -> str:
        """Short, for people."""

    @property
    def path(self) -> str:
        """The lock file."""

    @property
    def packages(self) -> Mapping[str, str]:
        """What is installed, for `made.json`."""

    def make(self, directory: str, lock_descriptor: int, cancel: threading.Event) -> Sequence[str]:
        """Fill the empty directory; answers what a person should know. lock_descriptor: to be inherited by
        whatever writes. Raises EnvironmentFailure, CacheError, and Interrupted when `cancel` is set.
        """

    def is_usable(self, directory: str) -> bool:
        """Whether what lies outside of it, and it needs, is still there."""

    def open(self, directory: str) -> T_co:
        """The environment that lies there whole."""


class EnvironmentKeeper:
    """Makes environments, or finds them made; keeps gc away from those in use. Thread-safe."""

    def __init__(self, cache_dir: str, *, note: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """note: told what takes long. warn: told what may be wrong."""
        self._store = EnvironmentStore(cache_dir)
        self._note = note
        self._warn = warn
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._makers: concurrent.futures.ThreadPoolExecutor | None = None
        self._futures: dict[str, concurrent.futures.Future[Any]] = {}
        self._held: list[int] = []

    def start(self, recipe: Recipe[T]) -> concurrent.futures.Future[T]:
        """Make it in the background, if need be."""
        with self._lock:
            if self._closed.is_set():
                raise EnvironmentFailure("the build is being ended")
            future = self._futures.get(recipe.digest)
            if future is None:
                if self._makers is None:
                    self._makers = concurrent.futures.ThreadPoolExecutor(
                        _AT_ONCE, thread_name_prefix="environment"
                    )
                future = self._futures[recipe.digest] = self._makers.submit(self._get, recipe)
            return future

    def acquire(self, recipe: Recipe[T], cancel: threading.Event) -> T:
        """The environment, which stays until `close`. Raises EnvironmentFailure, CacheError, Interrupted."""
        future = self.start(recipe)
        while not cancel.is_set():
            done, _ = concurrent.futures.wait((future,), timeout=_POLL_S)
            if done:
                return future.result()
        raise Interrupted("waiting for an environment was interrupted")

    def close(self) -> None:
        """End what is being made, and let gc have what was in use."""
        with self._lock:
            self._closed.set()
        if self._makers is not None:
            self._makers.shutdown(wait=True, cancel_futures=True)
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def _get(self, recipe: Recipe[T]) -> T:
        path = self._store.path(recipe.digest)
        try:
            descriptor = self._hold(recipe)
        except OSError as error:
            raise storage_failure(error, path) from error
        with self._lock:
            self._held.append(descriptor)
        self._store.touch(recipe.digest)
        return recipe.open(path)

    def _hold(self, recipe: Recipe[Any]) -> int:
        """A shared lock of an environment that is whole; makes it first if nobody else does."""
        while True:
            descriptor = self._store.open_lock(recipe.digest)
            try:
                while not self._closed.is_set():
                    if self._try(descriptor, fcntl.LOCK_SH):
                        if os.fstat(descriptor).st_nlink == 0:
                            break  # gc removed the lock with the environment: take the new one.
                        if self._is_whole(recipe):
                            kept, descriptor = descriptor, -1
                            return kept
                        if self._try(descriptor, fcntl.LOCK_EX) and not self._is_whole(recipe):
                            self._make(recipe, descriptor)
                            continue
                    time.sleep(_POLL_S)
                else:
                    raise Interrupted("making an environment was interrupted")
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _try(self, descriptor: int, operation: int) -> bool:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _is_whole(self, recipe: Recipe[Any]) -> bool:
        made = self._store.made(recipe.digest) is not None
        return made and recipe.is_usable(self._store.path(recipe.digest))

    def _make(self, recipe: Recipe[Any], descriptor: int) -> None:
        path = self._store.path(recipe.digest)
        if os.path.exists(f"{path}/made.json"):
            self._warn(f"the environment of `{recipe.name}` was changed after it was made, and is made anew")
        count = len(recipe.packages)
        self._note(f"making environment `{recipe.name}`: {count} package{'s' if count != 1 else ''}")
        self._store.clear(recipe.digest)
        os.makedirs(path)
        try:
            for warning in recipe.make(path, descriptor, self._closed):
                self._warn(warning)
            sync_file_system(path)
            self._store.finish(recipe.digest, {"lock": recipe.path, "packages": dict(recipe.packages)})
        except BaseException:
            with contextlib.suppress(OSError):  # The next attempt clears it, too.
                self._store.clear(recipe.digest)
            raise
