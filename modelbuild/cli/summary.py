"""What is said when a build is over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from modelbuild.cli import units
from modelbuild.cli.board import Board
from modelbuild.cli.terminal import Terminal, paint_error, visible
from modelbuild.errors import ExitCode
from modelbuild.events import ActionFinished, BuildFinished, TargetFinished
from modelbuild.label import Label, parse_label

_TAIL_LINES = 20
_TAIL_BYTES = 64 << 10
_TARGETS_SHOWN = 20
_FILES_SHOWN = 5
_UNREACHED_SHOWN = 3


def short_label(text: str) -> str:
    """`//targets:teacher`, without the name where it repeats the package: `//a/b:b` -> `//a/b`."""
    label: Label = parse_label(text)
    if label.package.rpartition("/")[2] == label.name:
        return text.rpartition(":")[0]
    return text


def summary_lines(board: Board, root: Path, terminal: Terminal, *, quiet: bool) -> Iterator[str]:
    """The last lines of a build: tests, targets with their files, one line of counts."""
    finished = board.finished
    if finished is None or _never_began(board, finished):
        return
    for test in board.tests:
        if quiet and test.passed:
            continue
        word = terminal.paint("PASSED", "green") if test.passed else terminal.paint("FAILED", "red")
        cached = terminal.paint(" (cached)", "dim") if test.cached else ""
        yield f"{word} {test.label}{cached}" + (f": {test.summary}" if test.summary else "")
    if quiet:
        if finished.exit_code not in (ExitCode.OK, ExitCode.TEST_FAILED):
            yield _count_line(board, finished, terminal)
        return
    built = [target for target in board.targets if target.built]
    if not _is_null(finished) and finished.exit_code != ExitCode.INTERRUPTED:
        yield from _target_lines(built, root, terminal)
    yield from _not_built_lines(board, finished, terminal)
    yield from _skipped_lines(board, terminal)
    yield _count_line(board, finished, terminal)


def _never_began(board: Board, finished: BuildFinished) -> bool:
    """Whether the error that ended it, which is shown elsewhere, is all there is to say."""
    refused = finished.exit_code in (ExitCode.USAGE, ExitCode.ENVIRONMENT)
    return refused and not board.done and not board.targets


def _is_null(finished: BuildFinished) -> bool:
    ran = finished.executed + finished.local_hits + finished.remote_hits + finished.failed
    return ran == 0 and finished.exit_code == ExitCode.OK


def _target_lines(built: list[TargetFinished], root: Path, terminal: Terminal) -> Iterator[str]:
    shown = built if len(built) <= _TARGETS_SHOWN else built[: _TARGETS_SHOWN - 1]
    for target in shown:
        yield terminal.paint(target.label, "bold")
        files = target.files if len(target.files) <= _FILES_SHOWN else target.files[: _FILES_SHOWN - 1]
        for file in files:
            yield f"  {file}{terminal.paint(_size_of(root / file), 'dim')}"
        if len(files) < len(target.files):
            yield f"  and {len(target.files) - len(files)} more files"
    if len(shown) < len(built):
        yield f"and {units.count(len(built) - len(shown), 'more target')}"


def _not_built_lines(board: Board, finished: BuildFinished, terminal: Terminal) -> Iterator[str]:
    told = {failure.label for failure in board.failures} | set(finished.unreached)
    waiting = [label for label in finished.skipped if label not in told]
    shown = waiting if len(waiting) <= _TARGETS_SHOWN else waiting[: _TARGETS_SHOWN - 1]
    for label in shown:
        yield f"{terminal.paint('not built', 'yellow')} {label}: something it needs failed"
    if len(shown) < len(waiting):
        yield f"and {len(waiting) - len(shown):,} more that need what failed"
    if finished.unreached:
        names = ", ".join(finished.unreached[:_UNREACHED_SHOWN])
        more = len(finished.unreached) - _UNREACHED_SHOWN
        names += f" and {more:,} more" if more > 0 else ""
        yield f"{terminal.paint('not reached', 'yellow')} {names}: `--keep-going` builds on after a failure"


def _skipped_lines(board: Board, terminal: Terminal) -> Iterator[str]:
    skipped = board.skipped if len(board.skipped) <= _TARGETS_SHOWN else board.skipped[: _TARGETS_SHOWN - 1]
    for target in skipped:
        yield f"{terminal.paint('skipped', 'yellow')} {target.label}: {target.reason}"
    if len(skipped) < len(board.skipped):
        yield f"and {len(board.skipped) - len(skipped):,} more skipped"


def _count_line(board: Board, finished: BuildFinished, terminal: Terminal) -> str:
    time = units.duration(finished.wall_s)
    built = [target for target in board.targets if target.built]
    skipped = f", {len(board.skipped):,} skipped" if board.skipped else ""
    if finished.exit_code == ExitCode.INTERRUPTED:
        return f"{terminal.paint('interrupted', 'yellow')} after {time}; what was finished is kept"
    if _is_null(finished):
        if len(built) == 1:
            return f"{short_label(built[0].label)} is up to date{skipped} ({time})"
        count = units.count(finished.targets or len(built), "target")
        return f"{count} are up to date{skipped} ({time})"
    unchanged = f"{finished.unchanged:,} unchanged, " if finished.unchanged else ""
    counts = (
        f"{finished.executed:,} executed, {finished.local_hits + finished.remote_hits:,} cached, "
        f"{unchanged}{finished.failed:,} failed in {time}"
    )
    if finished.critical_path_s > 1 and finished.executed > 1:
        counts += f" (critical path {units.duration(finished.critical_path_s)})"
    if finished.exit_code in (ExitCode.OK, ExitCode.TEST_FAILED):
        word = terminal.paint("built", "green")
        return f"{word} {units.count(finished.targets or len(built), 'target')}{skipped}: {counts}"
    word = terminal.paint("failed", "red")
    if finished.targets and not finished.skipped and not finished.failed:
        return f"{word} after {units.count(finished.targets, 'target')} had been built{skipped}: {counts}"
    whole = len(board.targets) or len(built) + len(finished.skipped)
    if not whole:
        return f"{word}{skipped}: {counts}"
    return f"{word}: {len(built):,} of {units.count(whole, 'target')} built{skipped}: {counts}"


def failure_lines(failure: ActionFinished, terminal: Terminal, root: Path) -> Iterator[str]:
    """A failed action: what, the cause, the end of its log and where all of it is."""
    text = failure.error or f"{failure.mnemonic} failed"
    first, *rest = text.removeprefix("error: ").split("\n")
    name = "" if failure.label in first else f"`{failure.label}` ({failure.mnemonic}): "
    after = f" (after {units.duration(failure.duration_s)})" if failure.duration_s else ""
    yield paint_error(terminal, "\n".join((f"error: {name}{first}{after}", *rest)))
    if not failure.log or failure.log in text:
        return
    path = root / failure.log
    tail, cut = _tail(path)
    if tail:
        yield f"   = the end of its log ({path}):" if cut else f"   = its log ({path}):"
        yield from (f"   {terminal.paint('|', 'blue')} {line}" for line in tail)
    else:
        yield f"   = its log ({path}) is empty"


def _tail(path: Path) -> tuple[list[str], bool]:
    """The last lines of a log, and whether there was more before them."""
    try:
        with open(path, "rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(length - _TAIL_BYTES, 0))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return [], False
    # Progress bars rewrite their line with carriage returns; only what was last on it counts.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip().split("\n")]
    if lines == [""]:
        return [], False
    return [visible(line) for line in lines[-_TAIL_LINES:]], len(lines) > _TAIL_LINES or length > _TAIL_BYTES


def _size_of(path: Path) -> str:
    """` (1.9 MB)`; of a tree the sum of its files; nothing when it cannot be read."""
    try:
        if not path.is_dir():
            return f" ({units.size(path.stat().st_size)})"
        sizes = [
            os.stat(os.path.join(folder, name)).st_size
            for folder, _, names in os.walk(path)
            for name in names
        ]
    except OSError:
        return ""
    return f" ({units.size(sum(sizes))} in {units.count(len(sizes), 'file')})"
