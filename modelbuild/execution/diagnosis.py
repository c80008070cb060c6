"""Diagnosis: why an action failed, as far as its exit code and the end of its log tell."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from modelbuild.actions.action import Action
from modelbuild.errors import ActionFailed
from modelbuild.execution.materialize import PlacedFile
from modelbuild.tool import PythonTool

LOG_LINES = 20
_LOG_TAIL_BYTES = 16 << 10
_REFUSED = os.strerror(errno.EROFS)
_NO_NETWORK = (
    "Temporary failure in name resolution",
    "Name or service not known",
    "Could not resolve host",
    "Network is unreachable",
    "Failed to establish a new connection",
    "error resolving DNS",
    "getaddrinfo failed",
)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a ToolError said. before: the lines of the log above it."""

    message: str
    more: tuple[str, ...]
    hint: str | None
    before: list[str]


def diagnose(action: Action, status: int, inputs: Sequence[PlacedFile], log_path: str) -> ActionFailed:
    """The error for an action that ended with `status`: its exit code, negative for the signal."""
    lines = _tail(log_path)
    if any(_REFUSED in line for line in lines):
        return _wrote_to_input(action, inputs, lines, log_path)
    hint = _hint(action, status, lines)
    said = _tool_error(lines) if isinstance(action.tool, PythonTool) and status == 1 else None
    if said is not None:
        # Said once: what is the message is not shown again as the end of the log.
        notes = (*said.more, *_notes(said.before, log_path))
        return ActionFailed(f"`{action.owner}` failed: {said.message}", notes=notes, hint=said.hint or hint)
    if status < 0:
        message = f"`{action.owner}` failed: {action.mnemonic} was killed by {_signal_name(-status)}"
    else:
        message = f"`{action.owner}` failed: {action.mnemonic} exited with code {status}"
    return ActionFailed(message, notes=log_notes(log_path), hint=hint)


def log_notes(path: str) -> tuple[str, ...]:
    """The end of a log and where all of it is, for the notes of an error."""
    return _notes(_tail(path), path)


def _notes(lines: Sequence[str], path: str) -> tuple[str, ...]:
    return (*lines, f"whole log: {path}") if lines else ()


def _tail(path: str) -> list[str]:
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _LOG_TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    # Progress bars rewrite their line with carriage returns; only what was last on it counts.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.removesuffix("\n").split("\n")]
    return [] if lines == [""] else lines[-LOG_LINES:]


def _hint(action: Action, status: int, lines: Sequence[str]) -> str | None:
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        if action.runner is not None and action.runner.kind == "ssh":
            return f"the disk of the device `{action.runner.address}` is full"
        return "the disk is full: free some space with `modelbuild cache gc --max-size 10G`"
    if any(sign in line for line in lines for sign in _NO_NETWORK):
        return "actions have no network: fetch it before, and make it an input"
    if any(os.strerror(errno.EXDEV) in line for line in lines):
        return "inputs, outputs and scratch are different mounts: copy between them, or `shutil.move`"
    if status == -signal.SIGKILL:
        return "the kernel kills a process so when memory runs out"
    if status == -signal.SIGILL and action.runner is not None:
        return "was the binary made for another CPU than the one that its platform's runner has?"
    return _missing_module(action, lines)


def _missing_module(action: Action, lines: Sequence[str]) -> str | None:
    """For a tool that imported what its own environment does not have."""
    if not isinstance(action.tool, PythonTool) or action.tool.lock is None:
        return None
    for line in reversed(lines):
        match = re.match(r"ModuleNotFoundError: No module named '([^'.]+)", line)
        if match is not None:
            lock = action.tool.lock.path
            return f"the tool runs in the environment of `{lock}`: add what has `{match[1]}` to that lock"
    return None


def _tool_error(lines: list[str]) -> _Said | None:
    """What a ToolError said, which call_tool writes last: `error: ...`, more lines of it, `hint: ...`."""
    start = next((at for at in reversed(range(len(lines))) if lines[at].startswith("error: ")), None)
    if start is None:
        return None
    said, hint = lines[start:], None
    if said[-1].startswith("hint: "):
        hint = said.pop().removeprefix("hint: ")
    if any(line.startswith("Traceback ") for line in said):
        return None
    return _Said(said[0].removeprefix("error: "), tuple(said[1:]), hint, lines[:start])


def _wrote_to_input(
    action: Action, inputs: Sequence[PlacedFile], lines: Sequence[str], log_path: str
) -> ActionFailed:
    """What the kernel refused: nothing has been changed."""
    refused = " ".join(line for line in lines if _REFUSED in line)
    names = [f"`{each.name}`" for each in inputs if each.name in refused or each.path in refused]
    what = f"its input {', '.join(names)}" if names else "a file that is not its own"
    return ActionFailed(
        f"`{action.owner}` tried to write to {what}",
        notes=(
            "workspace and cache are read-only for actions: nothing was changed",
            *_notes(lines, log_path),
        ),
        hint="write to the outputs or below $TMPDIR; to change an input, copy it there first",
    )


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
