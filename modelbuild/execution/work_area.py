"""WorkArea: `<cache>/work/`, where action directories come from and go to.

    <key>/       a running action's directory
    idle/<n>/    directories of finished actions, empty but for their folders, to be used again
    trash/<n>    what is to be removed

Making and removing half a dozen directories costs more than a small action, and on some file systems
(ext4 without a journal, mounted with `discard`) every removed directory or long symlink waits for the disk,
3 ms each. So folders are used again, and removing folders and links is left to a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import threading
import uuid

from modelbuild.cache.storage_failure import storage_failure
from modelbuild.execution.materialize import ActionDirectory

_MOST_IDLE = 32
_CLOSE_S = 1.0
_BATCH = 200
"""The remover is woken for this many paths at once: each wake-up takes the interpreter from an action."""


class WorkArea:
    """Hands out action directories. Thread-safe, and safe beside other builds on the same cache."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle_folder = f"{path}/idle"
        self._trash_folder = f"{path}/trash"
        self._idle: dict[frozenset[str], list[str]] = {}
        self._idle_count = 0
        self._lock = threading.Lock()
        self._lock_file: int | None = None
        self._trash: list[str] = []
        self._batches: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._cleaner: threading.Thread | None = None
        self._root_user = os.geteuid() == 0

    def open(self) -> None:
        """Claim the area, and clear it of what a killed build left. Raises CacheError.

        A read-only cache is no error before an action wants to run: it can still give hits.
        """
        if os.path.isdir(os.path.dirname(self.path)) and not os.access(os.path.dirname(self.path), os.W_OK):
            return
        try:
            os.makedirs(self._idle_folder, exist_ok=True)
            os.makedirs(self._trash_folder, exist_ok=True)
            self._lock_file = os.open(f"{self.path}/.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            with contextlib.suppress(BlockingIOError):  # Another build is running there.
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for name in os.listdir(self.path):
                    if name not in (".lock", "idle", "trash"):
                        self._discard(f"{self.path}/{name}")
                for name in os.listdir(self._trash_folder):
                    self._discard(f"{self._trash_folder}/{name}")
            fcntl.flock(self._lock_file, fcntl.LOCK_SH)
            for name in os.listdir(self._idle_folder):
                base = f"{self._idle_folder}/{name}"
                folders = _folders(base)
                if folders is None:
                    self._discard(base)
                else:
                    self._keep(base, folders)
        except OSError as error:
            raise storage_failure(error, self.path) from error

    def close(self) -> None:
        """Give the remover a moment; the next build removes the rest."""
        self._flush(0)
        if self._cleaner is not None:
            self._batches.put(None)
            self._cleaner.join(_CLOSE_S)
            self._cleaner = None
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def take(self, key: str, folders: frozenset[str]) -> ActionDirectory:
        """An empty directory for the action `key`, with `folders` below its root. Raises OSError."""
        base = f"{self.path}/{key}"
        while (idle := self._pop(folders)) is not None:
            try:
                os.rename(idle, base)
            except FileNotFoundError:
                continue  # Another build on this cache took it.
            except OSError:
                self._discard(base)  # Of a build that was killed.
                os.rename(idle, base)
            return ActionDirectory(base, folders)
        try:
            os.mkdir(base)
        except FileExistsError:
            self._discard(base)
            os.mkdir(base)
        except FileNotFoundError:
            os.makedirs(base)
        os.mkdir(f"{base}/root")
        os.mkdir(f"{base}/tmp")  # noqa: S108 - not the shared /tmp
        for folder in sorted(folders):
            os.mkdir(f"{base}/root/{folder}")
        return ActionDirectory(base, folders)

    def give_back(self, directory: ActionDirectory) -> None:
        """Empty the directory and keep its folders, or remove it all."""
        idle = f"{self._idle_folder}/{uuid.uuid4().hex}"
        try:
            if self._idle_count >= _MOST_IDLE or not self._empty(directory):
                self._discard(directory.base)
                return
            os.rename(directory.base, idle)
        except OSError:
            # Whatever a tool did to its directory, the next build removes it.
            return
        self._keep(idle, directory.folders)

    def discard(self, path: str) -> None:
        """Remove a file or directory, soon."""
        self._discard(path)

    def _empty(self, directory: ActionDirectory) -> bool:
        names = dict.fromkeys(os.listdir(directory.base), False)
        for name in names:
            if name not in ("root", "tmp", "log"):  # The next action writes its log over this one.
                self._discard(f"{directory.base}/{name}")
        for name in os.listdir(directory.tmp):
            self._discard(f"{directory.tmp}/{name}")
        found = 0
        pending = [""]
        while pending:
            inside = pending.pop()
            with os.scandir(f"{directory.root}/{inside}") as entries:
                for entry in entries:
                    name = f"{inside}/{entry.name}" if inside else entry.name
                    if name in directory.folders and entry.is_dir(follow_symlinks=False):
                        found += 1
                        pending.append(name)
                        if not self._root_user and entry.stat(follow_symlinks=False).st_mode & 0o700 != 0o700:
                            return False
                    else:
                        self._discard(entry.path)
        return found == len(directory.folders)

    def _pop(self, folders: frozenset[str]) -> str | None:
        with self._lock:
            bases = self._idle.get(folders)
            if not bases:
                return None
            self._idle_count -= 1
            return bases.pop()

    def _keep(self, base: str, folders: frozenset[str]) -> None:
        with self._lock:
            self._idle.setdefault(folders, []).append(base)
            self._idle_count += 1

    def _discard(self, path: str) -> None:
        """Remove files at once, since the disk may be full of them; links and folders soon."""
        if not os.path.islink(path):
            if os.path.isfile(path):
                os.unlink(path)
                return
            for folder, _, names in os.walk(path):
                for name in names:
                    inside = f"{folder}/{name}"
                    if not os.path.islink(inside):
                        with contextlib.suppress(OSError):  # The remover tries again.
                            os.unlink(inside)
        trash = f"{self._trash_folder}/{uuid.uuid4().hex}"
        try:
            if not path.startswith(f"{self._trash_folder}/"):
                os.rename(path, trash)
                path = trash
        except FileNotFoundError:
            return
        with self._lock:
            self._trash.append(path)
        self._flush(_BATCH)

    def _flush(self, batch: int) -> None:
        with self._lock:
            if len(self._trash) <= batch:
                return
            self._batches.put(self._trash)
            self._trash = []
            if self._cleaner is None:
                self._cleaner = threading.Thread(target=self._clean, name="work-area-cleaner", daemon=True)
                self._cleaner.start()

    def _clean(self) -> None:
        while (paths := self._batches.get()) is not None:
            for path in paths:
                with contextlib.suppress(OSError):  # The next build tries again.
                    if os.path.isdir(path) and not os.path.islink(path):
                        remove_tree(path)
                    else:
                        os.unlink(path)


def _folders(base: str) -> frozenset[str] | None:
    """The folders of an idle directory; None when it is not as `give_back` leaves it."""
    folders: set[str] = set()
    try:
        if sorted(os.listdir(base)) != ["root", "tmp"] or os.listdir(f"{base}/tmp"):  # noqa: S108
            return None
        for path, names, files in os.walk(f"{base}/root"):
            if files:
                return None
            inside = path[len(base) + len("/root/") :]
            folders.update(f"{inside}/{name}" if inside else name for name in names)
    except OSError:
        return None
    return frozenset(folders)


def remove_tree(path: str) -> None:
    """`rm -rf path`, which need not exist; directories without write permission included."""
    for _ in range(3):
        try:
            _remove(path)
        except FileNotFoundError:
            return
        except PermissionError:
            for folder, _, _ in os.walk(path):
                os.chmod(folder, 0o700)
        except OSError:
            continue  # Something appeared in a directory between listing and removing it.
        else:
            return
    _remove(path)


def _remove(path: str) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)
