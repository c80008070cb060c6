"""ActionDirectory: the place where one action runs, with its declared inputs and nothing else.

    <cache>/work/<key>/root/    the current directory: inputs at their logical names, as symlinks
    <cache>/work/<key>/tmp/     HOME and TMPDIR
    <cache>/work/<key>/packages/  links to directories of packages that the tool named

It is named by the action key, so that a tool that writes its directory into its output writes the same
bytes every time. An input is never copied: a file is a symlink to its absolute path, a tree is real
directories of such symlinks. Actions see them on read-only mounts (isolation.py); where the machine permits
none, root could write through a symlink, and so every input is compared with what it was before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
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
    """Made for one run by WorkArea.take, and given back to it."""

    def __init__(self, base: str, folders: frozenset[str]) -> None:
        self.base = base
        self.root = f"{base}/root"
        self.tmp = f"{base}/tmp"  # noqa: S108 - not the shared /tmp
        self.log = f"{base}/log"
        self.folders = folders
        self.placed: list[PlacedFile] = []

    def place(self, inputs: Iterable[ResolvedInput], sources: Iterable[str], blobs: LocalBlobs) -> None:
        """Lay out `inputs`. sources: the names of those that lie in the workspace. Raises BlobMissing."""
        workspace = frozenset(sources)
        for each in inputs:
            if each.kind == "file":
                self._place(each.name, each.path, each, each.name in workspace)
                continue
            os.makedirs(f"{self.root}/{each.name}", exist_ok=True)
            made = {each.name}
            for file in each.tree.files if each.tree else ():
                name = f"{each.name}/{file.path}"
                parent = os.path.dirname(name)
                if parent not in made:
                    os.makedirs(f"{self.root}/{parent}", exist_ok=True)
                    made.add(parent)
                in_workspace = each.path is not None
                path = (
                    f"{each.path}/{file.path}"
                    if in_workspace
                    else blobs.path(file.digest, executable=file.executable)
                )
                entry = ResolvedInput(name, "file", path, file.digest, None, file.executable)
                self._place(name, path, entry, in_workspace and each.name in workspace)

    def _place(self, name: str, path: str | None, source: ResolvedInput, is_source: bool) -> None:
        state = _state(path) if path else None
        if path is None or state is None:
            raise BlobMissing(source.digest, f"it is needed as `{name}`")
        os.symlink(path, f"{self.root}/{name}")
        self.placed.append(
            PlacedFile(name, path, source.digest, source.executable, is_source, source.state or state)
        )

    def link_packages(self, packages: Mapping[str, str]) -> dict[str, str]:
        """Links to directories of packages, beside the root; name -> path relative to the root."""
        if packages:
            os.makedirs(f"{self.base}/packages", exist_ok=True)
        for name, path in packages.items():
            os.symlink(path, f"{self.base}/packages/{name}")
        return {name: f"../packages/{name}" for name in packages}

    def changed(self) -> list[PlacedFile]:
        """The inputs that are no longer what they were."""
        return [each for each in self.placed if _state(each.path) != each.state]


def parent_folders(inputs: Iterable[ResolvedInput], outputs: Iterable[str]) -> frozenset[str]:
    """The folders of the root that have to be there before files and outputs are put into them."""
    folders: set[str] = set()
    for name in (*(each.name for each in inputs), *outputs):
        parent = name.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    return frozenset(folders)


def _state(path: str) -> FileState | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino)
