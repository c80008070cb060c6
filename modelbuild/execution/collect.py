"""Collecting: what an action left in its directory becomes blobs, by renaming, or an error."""

from __future__ import annotations

import functools
import os
import stat
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelbuild.actions.result import OutputDigest
from modelbuild.artifact import Artifact
from modelbuild.digest import Digest, digest_file
from modelbuild.execution.executor import LocalBlobs
from modelbuild.execution.materialize import ActionDirectory, PlacedFile
from modelbuild.tree import Tree, TreeFile

_PROGRAM_STARTS = (b"#!", b"\x7fELF")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")


class BadOutput(Exception):
    """An output is not what was declared; `problems` says what is wrong, one a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class OutputPolicy:
    """What differs between tools.

    scope: directory below which every file has to be declared; empty for the whole root.
    ignored: files that modelbuild itself put there.
    programs: an output that is a script or an ELF file is executable whatever its mode. (Bazel makes every
    output executable; this keeps what that is good for, and data stay read-only files.)
    executable: outputs are executable whatever they are: the rule says so.
    refuse_pickles: weights that run code when they are loaded are an error.
    """

    scope: str = ""
    ignored: frozenset[str] = frozenset()
    programs: bool = False
    executable: bool = False
    refuse_pickles: bool = False


class OutputCollector:
    """Collects the outputs of one run."""

    def __init__(self, directory: ActionDirectory, blobs: LocalBlobs, policy: OutputPolicy) -> None:
        self._directory = directory
        self._blobs = blobs
        self._policy = policy
        self._adopted: dict[str, tuple[Digest, bool]] = {}
        self._declared: Mapping[str, Artifact] = {}
        self._linked: set[str] = set()
        """Paths that lead through a symlink: the file may be an output under another name, too."""

    @functools.cached_property
    def _root(self) -> str:
        return os.path.realpath(self._directory.root)

    @functools.cached_property
    def _inputs(self) -> dict[str, PlacedFile]:
        return {os.path.realpath(each.path): each for each in self._directory.placed}

    def collect(self, outputs: Mapping[str, Artifact]) -> dict[str, OutputDigest]:
        """The digests of `outputs`, whose blobs are then stored. Raises BadOutput."""
        self._declared = outputs
        problems = [*self._missing(outputs), *self._undeclared(outputs)]
        if problems:
            raise BadOutput(problems)
        files = {name: self._files(name, artifact) for name, artifact in outputs.items()}
        if self._policy.refuse_pickles:
            problems = [
                f"`{path}` is a pickle: loading it would run code" for path in _pickles(files.values())
            ]
            if problems:
                raise BadOutput(problems)
        # Links last: by then the files they lead to have been adopted, and their digests are known.
        found = sorted(
            {path for paths in files.values() for path in paths.values()}, key=self._linked.__contains__
        )
        digests = {path: self._store(path) for path in found}
        return {name: self._output(artifact, files[name], digests) for name, artifact in outputs.items()}

    def _told(self, name: str) -> str:
        """An output as people know it: by its declared path, and not by its name in the directory."""
        for logical, artifact in self._declared.items():
            if name == logical or name.startswith(f"{logical}/"):
                return f"`{artifact}{name[len(logical) :]}`"
        return f"`{name}`"

    def _missing(self, outputs: Mapping[str, Artifact]) -> list[str]:
        problems = []
        for name, artifact in outputs.items():
            path = f"{self._directory.root}/{name}"
            try:
                mode = os.stat(path).st_mode
            except (FileNotFoundError, NotADirectoryError):
                if os.path.islink(path):
                    problems.append(
                        f"output {self._told(name)} is a dangling symlink to `{os.readlink(path)}`"
                    )
                else:
                    problems.append(f"output {self._told(name)} was not created")
                continue
            except OSError as error:
                problems.append(f"output {self._told(name)}: {error.strerror}")
                continue
            if artifact.kind == "tree" and not stat.S_ISDIR(mode):
                problems.append(f"output {self._told(name)} is declared as a directory and is a file")
            elif artifact.kind == "file" and stat.S_ISDIR(mode):
                problems.append(f"output {self._told(name)} is declared as a file and is a directory")
        return problems

    def _undeclared(self, outputs: Mapping[str, Artifact]) -> list[str]:
        inputs = {each.name for each in self._directory.placed}
        trees = {name for name, artifact in outputs.items() if artifact.kind == "tree"}
        known = inputs | set(outputs) | self._policy.ignored
        found: list[str] = []

        def walk(name: str) -> None:
            with os.scandir(f"{self._directory.root}/{name}") as entries:
                for entry in entries:
                    inside = f"{name}/{entry.name}" if name else entry.name
                    if inside in trees:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        walk(inside)
                    elif inside not in known:
                        found.append(inside)
                    elif inside in inputs and not entry.is_symlink():
                        found.append(f"{inside} (in the place of an input)")

        if os.path.isdir(f"{self._directory.root}/{self._policy.scope}"):
            walk(self._policy.scope)
        return [f"undeclared output {self._told(name)}" for name in sorted(found)]

    def _files(self, name: str, artifact: Artifact) -> dict[str, str]:
        """Path inside the output (empty for a file) -> path on disk."""
        path = f"{self._directory.root}/{name}"
        if artifact.kind != "tree":
            return {"": self._check(path, name)}
        files: dict[str, str] = {}
        self._walk_tree(path, name, "", files, (), linked=False)
        return files

    def _walk_tree(
        self,
        path: str,
        name: str,
        inside: str,
        files: dict[str, str],
        above: tuple[str, ...],
        *,
        linked: bool,
    ) -> None:
        real = os.path.realpath(path)
        if real in above:
            raise BadOutput(
                [f"output {self._told(name)} holds a symlink to a directory above it, `{inside}`"]
            )
        if os.path.islink(path):
            linked = True
            self._check_inside(real, path, f"{name}/{inside}" if inside else name)
        for entry in sorted(os.listdir(path)):
            below = f"{inside}/{entry}" if inside else entry
            full = f"{path}/{entry}"
            if os.path.isdir(full):
                self._walk_tree(full, name, below, files, (*above, real), linked=linked)
            else:
                files[below] = self._check(full, f"{name}/{below}")
                if linked:
                    self._linked.add(full)

    def _check(self, path: str, name: str) -> str:
        if os.path.islink(path):
            self._linked.add(path)
            real = os.path.realpath(path)
            if not os.path.exists(real):
                raise BadOutput([f"output {self._told(name)} is a dangling symlink to `{os.readlink(path)}`"])
            self._check_inside(real, path, name)
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadOutput([f"output {self._told(name)} is neither a file nor a directory"])
        return path

    def _check_inside(self, real: str, path: str, name: str) -> None:
        if real in self._inputs or real.startswith(self._root + "/"):
            return
        told, target = self._told(name), os.readlink(path)
        raise BadOutput([f"output {told} is a symlink out of the action's directory, to `{target}`"])

    def _store(self, path: str) -> tuple[Digest, bool]:
        if path in self._linked:
            real = os.path.realpath(path)
            if real in self._adopted:
                return self._adopted[real]
            source = self._inputs.get(real)
            if source is not None and not source.is_source:
                return source.digest, source.executable
            return self._copy(real)
        status = os.lstat(path)
        executable = self._is_executable(path, status.st_mode)
        if status.st_nlink > 1:
            # Another name of the same file may lie outside, where its owner goes on writing to it.
            return self._copy(path)
        digest = self._blobs.adopt(path, executable=executable)
        if self._linked:
            place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
            self._adopted[place] = (digest, executable)
        return digest, executable

    def _copy(self, path: str) -> tuple[Digest, bool]:
        digest = digest_file(path)
        self._blobs.put_file(path, digest)
        return digest, self._is_executable(path, os.stat(path).st_mode)

    def _is_executable(self, path: str, mode: int) -> bool:
        if self._policy.executable or mode & stat.S_IXUSR:
            return True
        if not self._policy.programs:
            return False
        with open(path, "rb", buffering=0) as stream:
            return stream.read(4).startswith(_PROGRAM_STARTS)

    def _output(
        self, artifact: Artifact, files: Mapping[str, str], digests: Mapping[str, tuple[Digest, bool]]
    ) -> OutputDigest:
        if artifact.kind != "tree":
            digest, executable = digests[files[""]]
            return OutputDigest("file", digest, executable or self._policy.executable)
        tree = Tree(tuple(TreeFile(inside, *digests[path]) for inside, path in sorted(files.items())))
        return OutputDigest("tree", self._blobs.put_bytes(tree.encode()))


def _pickles(outputs: Iterable[Mapping[str, str]]) -> list[str]:
    return [
        inside or os.path.basename(path)
        for files in outputs
        for inside, path in files.items()
        if path.endswith(_PICKLE_SUFFIXES) and _is_pickle(path)
    ]


def _is_pickle(path: str) -> bool:
    """A pickle of protocol 2 or later, or a zip archive with one inside, as torch.save writes."""
    with open(path, "rb") as stream:
        head = stream.read(4)
    if len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    if head != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False
