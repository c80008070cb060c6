"""OutputTree: `modelbuild-out/`, where a person finds what was built, as symlinks into the cache."""

from __future__ import annotations

import contextlib
import os
import uuid

from modelbuild.actions.result import OutputDigest
from modelbuild.artifact import Artifact
from modelbuild.cache.blob_store import BlobMissing
from modelbuild.errors import EnvironmentFailure
from modelbuild.execution.executor import LocalBlobs
from modelbuild.execution.work_area import remove_tree
from modelbuild.tree import Tree

OUTPUT_ROOT = "modelbuild-out"


class OutputTree:
    """The outputs of one workspace.

    Whatever stands where an output belongs is replaced; nothing else is touched. A user may delete any
    of it at any time.
    """

    def __init__(self, workspace: str, blobs: LocalBlobs) -> None:
        self.root = os.path.join(workspace, OUTPUT_ROOT)
        self._blobs = blobs
        self._known_folders: set[str] = set()

    def prepare(self) -> None:
        """Make the directory, with a .gitignore. Raises EnvironmentFailure when something is in its place."""
        try:
            os.mkdir(self.root)
        except FileExistsError:
            if not os.path.isdir(self.root):
                raise EnvironmentFailure(
                    f"`{OUTPUT_ROOT}` is in the way: it is not a directory",
                    notes=(f"outputs are shown in `{self.root}`",),
                    hint="move it away",
                ) from None
        except OSError as error:
            raise _cannot_write(self.root, error) from error
        ignore = os.path.join(self.root, ".gitignore")
        if not os.path.lexists(ignore):
            try:
                with open(ignore, "w", encoding="ascii") as stream:
                    stream.write("*\n")
            except OSError as error:
                raise _cannot_write(ignore, error) from error

    def current(self, artifact: Artifact, output: OutputDigest, tree: Tree | None = None) -> bool:
        """Whether the artifact stands there as `put` would make it. A readlink for each file.

        A tree is also compared name by name, so that neither a file too many nor one too few passes.
        """
        place = os.path.join(self.root, artifact.path)
        if tree is None:
            path = self._blobs.path(output.digest, executable=output.executable)
            return path is not None and _link(place) == path
        links: dict[str, str] = {}
        if os.path.islink(place) or not _read_links(place, "", links):
            return False
        if len(links) != len(tree.files):
            return False
        return all(
            links.get(file.path) == (self._blobs.path(file.digest, executable=file.executable) or "")
            for file in tree.files
        )

    def put(self, artifact: Artifact, output: OutputDigest, tree: Tree | None = None) -> None:
        """Show the artifact: a file as a symlink, a tree as a directory of them. Raises BlobMissing."""
        place = os.path.join(self.root, artifact.path)
        try:
            try:
                self._show(place, output, tree)
            except FileNotFoundError:  # Someone deleted a folder since this build made it.
                self._known_folders.clear()
                self.prepare()
                self._show(place, output, tree)
        except OSError as error:
            raise _cannot_write(place, error) from error

    def _show(self, place: str, output: OutputDigest, tree: Tree | None) -> None:
        self._parents(os.path.dirname(place))
        temporary = os.path.join(self.root, f".new-{uuid.uuid4().hex}")
        if tree is None:
            self._show_file(place, temporary, output)
        else:
            self._show_tree(place, temporary, tree)

    def _show_file(self, place: str, temporary: str, output: OutputDigest) -> None:
        path = self._blobs.path(output.digest, executable=output.executable)
        if path is None:
            raise BlobMissing(output.digest, f"it is output `{place}`")
        try:
            os.symlink(path, place)
        except FileExistsError:
            if _link(place) == path:
                return
            os.symlink(path, temporary)
            _swap_in(temporary, place)

    def _show_tree(self, place: str, temporary: str, tree: Tree) -> None:
        try:
            made = {temporary}
            os.mkdir(temporary)
            for file in tree.files:
                path = self._blobs.path(file.digest, executable=file.executable)
                if path is None:
                    raise BlobMissing(file.digest, f"it is `{file.path}` of output `{place}`")  # noqa: TRY301
                target = f"{temporary}/{file.path}"
                parent = os.path.dirname(target)
                if parent not in made:
                    os.makedirs(parent, exist_ok=True)
                    made.add(parent)
                os.symlink(path, target)
            _swap_in(temporary, place)
        except BaseException:
            remove_tree(temporary)
            raise

    def _parents(self, folder: str) -> None:
        """Make `folder`; a file or symlink that stands where a directory belongs gives way."""
        if folder in self._known_folders or folder == self.root:
            return
        self._parents(os.path.dirname(folder))
        if os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder)):
            os.unlink(folder)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        self._known_folders.add(folder)


def _swap_in(temporary: str, place: str) -> None:
    """Put `temporary` at `place`, whatever is there."""
    if os.path.isdir(temporary) or (os.path.isdir(place) and not os.path.islink(place)):
        # rename cannot replace a filled directory, nor a file by a directory.
        aside = f"{temporary}-old"
        with contextlib.suppress(FileNotFoundError):
            os.rename(place, aside)
        os.rename(temporary, place)
        if os.path.isdir(aside) and not os.path.islink(aside):
            remove_tree(aside)
        elif os.path.lexists(aside):
            os.unlink(aside)
    else:
        os.replace(temporary, place)


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _read_links(place: str, inside: str, links: dict[str, str]) -> bool:
    """Collect path -> link target; False when something is neither a symlink nor a directory."""
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                name = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_symlink():
                    links[name] = os.readlink(entry.path)
                elif not entry.is_dir(follow_symlinks=False) or not _read_links(entry.path, name, links):
                    return False
    except OSError:
        return False
    return True


def _cannot_write(path: str, error: OSError) -> EnvironmentFailure:
    return EnvironmentFailure(f"cannot write `{path}`: {error.strerror}")
