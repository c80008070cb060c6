"""ActionDirectory: the place where one action runs, with its declared inputs and nothing else.

    <cache>/work/<key>/root/    the current directory: inputs at their logical names, as symlinks
    <cache>/work/<key>/tmp/     HOME and TMPDIR

It is named by the action key, so that a tool that writes its directory into its output writes the same
bytes every time. An input is never copied: a file is a symlink to its absolute path, a tree is real
directories of such symlinks. Nothing stops root from writing through a symlink, so every input is
compared with what it was before.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from modelbuild.cache.blob_store import BlobMissing
from modelbuild.digest import Digest
from modelbuild.execution.executor import FileState, LocalBlobs, ResolvedInput


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """One file that the action can read. name: where it lies in the root; path: where it really is."""

    name: str
    path: str
    digest: Digest
    executable: bool
    is_source: bool
    state: FileState


class ActionDirectory:
    """Made for one run, removed after it."""

    def __init__(self, work: str, key: str) -> None:
        self.base = os.path.join(work, key)
        self.root = os.path.join(self.base, "root")
        self.tmp = os.path.join(self.base, "tmp")
        self.placed: list[PlacedFile] = []
        self._made: set[str] = {""}

    def create(self) -> None:
        """Make the empty directories; a stale one, of a build that was killed, gives way."""
        try:
            os.mkdir(self.base)
        except FileExistsError:
            stale = os.path.join(os.path.dirname(self.base), f"stale-{uuid.uuid4().hex}")
            os.rename(self.base, stale)
            remove_tree(stale)
            os.mkdir(self.base)
        except FileNotFoundError:
            os.makedirs(self.base)
        os.mkdir(self.root)
        os.mkdir(self.tmp)

    def place(
        self,
        inputs: Iterable[ResolvedInput],
        sources: Iterable[str],
        outputs: Iterable[str],
        blobs: LocalBlobs,
    ) -> None:
        """Lay out `inputs`, and make the parents of `outputs`.

        sources: the names of inputs that are files of the workspace. Raises BlobMissing.
        """
        workspace = frozenset(sources)
        for each in inputs:
            if each.kind == "file":
                self._place(each.name, each.path, each, each.name in workspace)
                continue
            self.directory(each.name)
            for file in each.tree.files if each.tree else ():
                inside = each.path is not None
                path = (
                    os.path.join(each.path or "", file.path)
                    if inside
                    else blobs.path(file.digest, executable=file.executable)
                )
                entry = ResolvedInput(each.name, "file", path, file.digest, None, file.executable)
                self._place(f"{each.name}/{file.path}", path, entry, inside and each.name in workspace)
        for name in outputs:
            self.directory(os.path.dirname(name))

    def _place(self, name: str, path: str | None, source: ResolvedInput, is_source: bool) -> None:
        state = _state(path) if path else None
        if path is None or state is None:
            raise BlobMissing(source.digest, f"it is needed as `{name}`")
        self.directory(os.path.dirname(name))
        os.symlink(path, f"{self.root}/{name}")
        self.placed.append(
            PlacedFile(name, path, source.digest, source.executable, is_source, source.state or state)
        )

    def directory(self, name: str) -> None:
        """Make directory `name` of the root and its parents."""
        if name in self._made:
            return
        self.directory(os.path.dirname(name))
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{self.root}/{name}")
        self._made.add(name)

    def changed(self) -> list[PlacedFile]:
        """The inputs that are no longer what they were."""
        return [each for each in self.placed if _state(each.path) != each.state]

    def remove(self) -> None:
        """Remove everything; a process that was killed a moment ago may still have been writing."""
        remove_tree(self.base)


def _state(path: str) -> FileState | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino)


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
