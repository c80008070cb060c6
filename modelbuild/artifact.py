"""Artifacts: the files and trees that actions read and write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ArtifactKind = Literal["source", "file", "tree"]


@dataclass(frozen=True, slots=True, order=True)
class Artifact:
    """A file or tree known by its path.

    kind `source`: a file (or directory) of the workspace; `path` is relative to the workspace root.
    kind `file` or `tree`: made by one action; `path` is relative to the output root `modelbuild-out`.
    """

    path: str
    kind: ArtifactKind

    @property
    def is_source(self) -> bool:
        """Whether a person wrote it, rather than an action."""
        return self.kind == "source"

    @property
    def basename(self) -> str:
        """The last segment of the path."""
        return self.path.rpartition("/")[2]

    def __str__(self) -> str:
        """The path a person sees, relative to the workspace root."""
        return self.path if self.is_source else f"modelbuild-out/{self.path}"
