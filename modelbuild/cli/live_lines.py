"""The lines of the live display: rows of (text, style) that fit the terminal. Draws nothing itself."""

from __future__ import annotations

from modelbuild.cli import units
from modelbuild.cli.board import Board, RunningAction
from modelbuild.cli.terminal import visible

Span = tuple[str, str]
"""Text and the name of a rich style."""

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SPINS_PER_S = 8
_BAR_WIDTH = 20
_SHORT_BAR_WIDTH = 10


def board_lines(board: Board, now_s: float, width: int, height: int) -> list[list[Span]]:
    """All rows: one for each running action, longest running first, then the counts."""
    room = max(height - 2, 1)
    running = sorted(board.running.values(), key=lambda action: action.started.time_s)
    shown = running if len(running) <= room else running[: room - 1]
    rows = [_action_row(action, now_s, width - 1) for action in shown]
    if len(shown) < len(running):
        rows.append([(f"  and {len(running) - len(shown)} more running", "dim")])
    rows.append(_count_row(board, now_s, width - 1))
    return rows


def _action_row(action: RunningAction, now_s: float, width: int) -> list[Span]:
    """What fits, in this order of importance: name, elapsed, bar, time left, steps, metrics."""
    spin = _SPINNER[int(now_s * _SPINS_PER_S) % len(_SPINNER)]
    name = f" {action.started.mnemonic} "
    elapsed = f"  {units.duration(action.elapsed_s(now_s))}"
    label_room = max(width - len(name) - len(elapsed) - 1, 8)
    label = _shorten(action.started.label, label_room)
    room = width - 1 - len(name) - len(label) - len(elapsed)

    bar: list[Span] = []
    fraction = action.fraction(now_s)
    if fraction is not None:
        bar_width = _BAR_WIDTH if room >= 2 * _BAR_WIDTH else _SHORT_BAR_WIDTH
        if room >= bar_width + 2:
            bar = _bar(fraction, bar_width)
            room -= bar_width + 2
    left = ""
    remaining = action.remaining_s(now_s)
    if remaining is not None:
        left, room = _fit(f", {units.duration(remaining)} left", room)
    steps, metrics = "", ""
    if action.progress:
        progress = action.progress
        steps, room = _fit(f"  {progress.step:,}/{progress.total:,} {_one_line(progress.unit)}", room)
        for key, value in progress.metrics.items():
            part, room = _fit(f"  {_one_line(units.rate(key, value))}", room)
            metrics += part
    elif action.started.progress:
        metrics, room = _fit(f"  {_one_line(action.started.progress)}", room)
    return [
        (spin, "cyan"),
        (name, "bold"),
        (label, ""),
        *bar,
        (steps, ""),
        (metrics, "cyan"),
        (elapsed + left, "dim"),
    ]


def _count_row(board: Board, now_s: float, width: int) -> list[Span]:
    counts = board.counts
    failed = f"{counts['failed']:,} failed"
    done = f"{board.done:,} of {units.count(board.total, 'action')}"
    head = f"{counts['executed']:,} executed, {board.cached:,} cached, {counts['unchanged']:,} unchanged, "
    room = width - len(head) - len(failed)
    of, room = _fit(f"; {done}", room)
    elapsed, room = _fit(f"  {units.duration(now_s)}", room)
    path = ""
    if board.critical_path_s >= 1:
        path, room = _fit(f"  critical path {units.duration(board.critical_path_s)}", room)
    return [
        (head, ""),
        (failed, "bold red" if counts["failed"] else ""),
        (of, ""),
        (elapsed + path, "dim"),
    ]


def _bar(fraction: float, width: int) -> list[Span]:
    full = int(fraction * width)
    return [("  ", ""), ("━" * full, "green"), ("─" * (width - full), "dim")]


def _one_line(text: str) -> str:
    """What a rule or a tool wrote, without anything that would move the cursor."""
    return visible(" ".join(text.split()))


def _fit(text: str, room: int) -> tuple[str, int]:
    return (text, room - len(text)) if len(text) <= room else ("", room)


def _shorten(label: str, room: int) -> str:
    """Cut the middle out of a long label; its end tells more than its start."""
    if len(label) <= room:
        return label
    end = max(room * 2 // 3, 1)
    return label[: room - end - 1] + "…" + label[-end:]
