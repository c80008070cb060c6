"""Executor: the contract between the scheduler and what runs actions.

A scheduler resolves an action's inputs to digests, finds no result for its key, and hands a
PreparedAction to an executor. A later executor (a remote engine) plugs in behind the same Protocol.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from modelbuild.actions.action import Action
from modelbuild.actions.result import ActionResult
from modelbuild.digest import Digest
from modelbuild.tree import Tree


@dataclass(frozen=True, slots=True)
class FileState:
    """What stat said of a file when its digest was taken; equal states stand for equal bytes."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class ResolvedInput:
    """One input whose content is known.

    name: the logical name, which is its path inside the action's directory (`in/model`, `pkg/src.txt`).
    path: absolute path of a good local file; for a tree, the directory its files lie in when it is a
    directory of the workspace, or None when its files are blobs.
    tree: the manifest, for trees.
    state: of a workspace file, the stat that its digest belongs to; a file that no longer has it after
    the action ran was changed while the build read it.
    """

    name: str
    kind: Literal["file", "tree"]
    path: str | None
    digest: Digest
    tree: Tree | None = None
    executable: bool = False
    state: FileState | None = None


@dataclass(frozen=True, slots=True)
class PreparedAction:
    """An action with its key and its inputs, ready to run."""

    action: Action
    key: str
    inputs: tuple[ResolvedInput, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """What a running tool reports: `step` of `total` `unit`s, and metrics such as loss."""

    step: int
    total: int
    unit: str
    metrics: Mapping[str, float | str]


def _ignore_progress(progress: Progress) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class ExecutionContext:
    """What surrounds one run and is no part of the action.

    log_path: absolute path where the tool's stdout and stderr are kept when it fails.
    cancel: set by anyone to end the action; `execute` then raises Interrupted within a second.
    scratch: for resumable actions, a directory (made if missing) that is kept until the action succeeds.
    """

    log_path: str
    cancel: threading.Event = field(default_factory=threading.Event)
    on_progress: Callable[[Progress], None] = _ignore_progress
    scratch: str | None = None


class LocalBlobs(Protocol):
    """The part of a local blob store that execution needs. Thread-safe."""

    def adopt(self, path: str, *, executable: bool = False) -> Digest:
        """Move a finished file into the store, by renaming it."""
        ...

    def put_bytes(self, data: bytes) -> Digest:
        """Store `data`."""
        ...

    def put_file(self, path: str, digest: Digest) -> None:
        """Store a copy (a reflink where the disk can) of a file that stays where it is."""
        ...

    def path(self, digest: Digest, *, executable: bool = False) -> str | None:
        """The absolute path of a blob, or None when the store does not have it."""
        ...


class Executor(Protocol):
    """Runs actions. Called from many threads at once."""

    def execute(self, prepared: PreparedAction, ctx: ExecutionContext) -> ActionResult | None:
        """Run the action; None when this executor cannot run such an action.

        Raises ActionFailed when the tool fails or does not do what it declared, BlobMissing when the store
        lost an input, Interrupted when `ctx.cancel` was set, CacheError when the disk is full.
        """
        ...
