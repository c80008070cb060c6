"""`build --check`: a second run of an action against the result that stands."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Protocol

from modelbuild.actions.action import Action
from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.digest import Digest
from modelbuild.errors import ActionFailed
from modelbuild.tree import Tree

_COMPARE = "modelbuild.toolkit.compare"


class ReadableBlobs(Protocol):
    """The part of a blob store that a comparison needs."""

    def path(self, digest: Digest, *, executable: bool = False) -> str | None:
        """The path of a blob."""

    def read(self, digest: Digest) -> bytes:
        """The content of a blob."""


def compare_results(
    blobs: ReadableBlobs, action: Action, standing: ActionResult, rerun: ActionResult
) -> None:
    """Raise ActionFailed when a rerun differs more than the rule's determinism class allows.

    bitwise: every byte is equal. numeric: files that differ must be tensors of equal names and shapes; the
    largest difference of each is told. none: nothing is compared. Volatile outputs never are.
    """
    if action.determinism == "none":
        return
    differing = [
        pair
        for name in standing.outputs
        if name not in action.volatile
        for pair in _differing_files(blobs, action, name, standing.outputs[name], rerun.outputs[name])
    ]
    if not differing:
        return
    if action.determinism == "bitwise":
        raise _failure(
            action, [f"`{name}`: {_digest(old)} became {_digest(new)}" for name, old, new in differing]
        )
    problems = [line for pair in differing for line in _numeric_problems(blobs, *pair)]
    if problems:
        raise _failure(action, problems)


def _failure(action: Action, notes: list[str]) -> ActionFailed:
    return ActionFailed(
        f"`{action.owner}`: {action.mnemonic} gave another result when it was run again",
        notes=tuple(notes[:20]),
        hint=f"its rule says `{action.determinism}`; the result that stands was kept",
    )


def _differing_files(
    blobs: ReadableBlobs, action: Action, name: str, old: OutputDigest, new: OutputDigest
) -> list[tuple[str, Digest | None, Digest | None]]:
    if old.digest == new.digest:
        return []
    if old.kind == "file" or new.kind == "file":
        return [(action.outputs[name].path, old.digest, new.digest)]
    before = {file.path: file.digest for file in Tree.decode(blobs.read(old.digest)).files}
    after = {file.path: file.digest for file in Tree.decode(blobs.read(new.digest)).files}
    return [
        (f"{name}/{path}", before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def _numeric_problems(blobs: ReadableBlobs, name: str, old: Digest | None, new: Digest | None) -> list[str]:
    paths = [blobs.path(digest) if digest else None for digest in (old, new)]
    if None in paths:
        return [f"`{name}` is in one of the two only"]
    if not name.endswith((".safetensors", ".npy")):
        return [f"`{name}` holds no tensors and differs"]
    completed = subprocess.run(
        [sys.executable, "-m", _COMPARE, *[path for path in paths if path]],
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        return [f"`{name}` cannot be compared: {completed.stderr.strip().splitlines()[-1:]}"]
    report = json.loads(completed.stdout)
    return [f"`{name}`: {problem}" for problem in report["problems"]]


def _digest(digest: Digest | None) -> str:
    return digest.short if digest else "nothing"
