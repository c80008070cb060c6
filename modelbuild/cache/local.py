"""LocalCache: the cache directory of a workspace, with everything that lies in it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from modelbuild.cache.atomic_file import remove, replace_file
from modelbuild.cache.completeness import CompleteActionCache
from modelbuild.cache.disk import EXECUTABLE_SUFFIX, TEMPORARY, DiskBlobStore
from modelbuild.cache.disk_action_cache import DiskActionCache
from modelbuild.cache.explain import explain
from modelbuild.cache.fact_index import FactIndex
from modelbuild.cache.fingerprint import FingerprintIndex
from modelbuild.cache.locks import KeyLocks, UseLock
from modelbuild.cache.storage_failure import storage_failure
from modelbuild.cache.trace import Trace, TraceRow
from modelbuild.errors import CacheError
from modelbuild.tree import Tree

FORMAT = 1
"""Raised when the layout changes so that an older modelbuild must not touch it."""

TREE_START = b'["modelbuild-tree-'
"""How every manifest starts; a 14 GB model is not read to find out that it is none."""

_DAY_S = 86_400.0
_OURS = (
    "README.md", ".gitignore", "CACHEDIR.TAG", "cas", "ac", "quarantine", "scratch", "logs", "work",
    "environments", "snapshots", "tool_", "format", "key.locks", "use.lock", "index.sqlite", "trace.sqlite",
    "lost+found", ".gitkeep", ".keep", ".DS_Store", ".nfs",
)  # fmt: skip
_CACHEDIR_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# This directory holds a cache made by modelbuild; it can be deleted at any time.
# For information about cache directory tags see https://bford.info/cachedir/
"""
_GITIGNORE = b"*\n!.gitignore\n!CACHEDIR.TAG\n!README.md\n"


class LocalCache:
    """An open cache directory.

    blobs: content by digest. actions: results whose blobs are all there. fingerprints: digests of source
    files. locks: one per action key. trace: past runs. use: the lock that keeps gc away.
    notes: sentences the user should read, such as that a damaged index was made anew; they grow while the
    cache is used.
    """

    def __init__(self, root: str | os.PathLike[str], workspace: str | os.PathLike[str] = "") -> None:
        """Opens the cache at `root`, making it if it is not there.

        workspace: the directory whose builds are recorded and asked about.

        Raises CacheError when `root` is something else, was made by a newer modelbuild, or cannot be read.
        """
        self.root = os.path.abspath(os.fspath(root))
        self.notes: list[str] = []
        self.read_only = _prepare(self.root)
        self._has_logs = False
        self.facts = FactIndex(f"{self.root}/index.sqlite", notes=self.notes)
        self.fingerprints = FingerprintIndex(self.facts)
        self.blobs = DiskBlobStore(self.root, self.facts)
        self.entries = DiskActionCache(self.root)
        self.actions = CompleteActionCache(self.entries, self.blobs)
        self.locks = KeyLocks(f"{self.root}/key.locks")
        self.use = UseLock(f"{self.root}/use.lock")
        name = os.path.realpath(workspace) if workspace else ""
        self.trace = Trace(f"{self.root}/trace.sqlite", workspace=name, notes=self.notes)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, root: str | os.PathLike[str], workspace: str | os.PathLike[str] = ""
    ) -> Iterator[LocalCache]:
        """The cache at `root` for the time of a build: no gc meanwhile; facts and traces are written last."""
        cache = cls(root, workspace)
        try:
            with cache.use.shared():
                yield cache
        finally:
            cache.close()

    def explain(
        self,
        previous: TraceRow | None,
        components: Mapping[str, str],
        detail: Mapping[str, Any],
        *,
        checked: bool = False,
    ) -> str:
        """Why an action runs, given its last run and what its key is made of now; see explain.explain."""
        vanished = self.actions.dropped.get(previous.key, ()) if previous is not None else ()
        return str(
            explain(previous, components, detail, load_tree=self._tree, vanished=vanished, checked=checked)
        )

    def log_path(self, key: str) -> str:
        """Where the output of action `key` is written while it runs; kept when it fails."""
        path = f"{self.root}/logs"
        if not self._has_logs:
            try:
                os.makedirs(path, exist_ok=True)
            except OSError as error:
                raise storage_failure(error, path) from error
            self._has_logs = True
        return f"{path}/{key}.log"

    def scratch_dir(self, key: str) -> str:
        """The directory where the resumable action `key` keeps what it needs to go on; made if need be."""
        path = f"{self.root}/scratch/{key}"
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise storage_failure(error, path) from error
        return path

    def flush(self) -> None:
        """Writes facts and traces; milliseconds. Does not wait for the disk."""
        self.facts.flush()
        self.trace.flush()

    def sync(self) -> None:
        """Waits until every blob is on disk; what is not synced is hashed again after a reboot."""
        if not self.read_only:
            self.blobs.sync()

    def close(self) -> None:
        """Writes facts and traces and closes their files."""
        self.facts.close()
        self.trace.close()

    def _tree(self, sha256: str) -> Tree | None:
        for suffix in ("", EXECUTABLE_SUFFIX):
            try:
                with open(f"{self.blobs.cas}/{sha256[:2]}/{sha256}{suffix}", "rb") as stream:
                    if not stream.peek(len(TREE_START)).startswith(TREE_START):
                        return None
                    return Tree.decode(stream.read())
            except (OSError, ValueError):
                continue
        return None


def is_made(root: str | os.PathLike[str]) -> bool:
    """Whether there is anything at `root`; what only looks at a cache must not make one.

    Something that is no cache is there, too: opening it says what is wrong.
    """
    try:
        with os.scandir(root) as entries:
            return any(True for _ in entries)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _prepare(root: str) -> bool:
    """Makes or checks the layout; whether it is read-only."""
    try:
        names = set(os.listdir(root))
    except FileNotFoundError:
        names = set()
        try:
            os.makedirs(root, exist_ok=True)
        except OSError as error:
            raise storage_failure(error, root) from error
    except OSError as error:
        raise CacheError(
            f"the cache `{root}` cannot be read", notes=(error.strerror or str(error),)
        ) from error
    read_only = not os.access(root, os.W_OK | os.X_OK)
    if "format" in names and _has_format(f"{root}/format"):
        if not read_only:
            _sweep(f"{root}/cas/{TEMPORARY}")
            _sweep(f"{root}/ac/{TEMPORARY}")
        return read_only
    strangers = sorted(name for name in names if not name.startswith(_OURS))
    if strangers:
        raise CacheError(
            f"`{root}` is not a modelbuild cache",
            notes=(f"it holds `{strangers[0]}`",),
            hint="name an empty or a new directory with `--cache-dir`",
        )
    try:
        for name, content in ((".gitignore", _GITIGNORE), ("CACHEDIR.TAG", _CACHEDIR_TAG)):
            if name not in names:
                replace_file(f"{root}/{name}", content, temporary_dir=f"{root}/cas/{TEMPORARY}")
        replace_file(f"{root}/format", f"{FORMAT}\n".encode(), temporary_dir=f"{root}/cas/{TEMPORARY}")
    except OSError as error:
        raise storage_failure(error, root) from error
    return False


def _has_format(path: str) -> bool:
    """Whether the cache says its format, and it is ours; an empty file is what a lost machine leaves."""
    try:
        with open(path, "rb") as stream:
            text = stream.read(64).strip()
    except OSError as error:
        raise CacheError(f"the cache cannot read `{path}`", notes=(error.strerror or str(error),)) from error
    if text in (b"", str(FORMAT).encode()):
        return bool(text)
    found = text.decode(errors="replace")
    raise CacheError(
        f"the cache at `{os.path.dirname(path)}` has format `{found}`, not `{FORMAT}`",
        hint="update modelbuild, or name another cache with `--cache-dir`",
    )


def _sweep(directory: str) -> None:
    """Removes temporary files that a killed process left a day ago or more."""
    deadline = time.time() - _DAY_S
    with contextlib.suppress(FileNotFoundError, PermissionError), os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < deadline:
                    remove(entry.path)
