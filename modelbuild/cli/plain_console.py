"""PlainConsole: a build as lines, for a pipe, a log file or CI."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from modelbuild.cli import units
from modelbuild.cli.board import Board, RunningAction
from modelbuild.cli.summary import failure_lines, summary_lines
from modelbuild.cli.terminal import Terminal, paint_error, visible
from modelbuild.events import ActionFinished, BuildFinished, Event, Message

TICK_S = 0.5
_START_SHOWN_AFTER_S = 1.0
_PROGRESS_EVERY_S = 10.0


class PlainConsole:
    """One line for each action that ran, one every ten seconds for a long one, none for cached ones."""

    def __init__(self, terminal: Terminal, root: Path, *, quiet: bool = False, verbose: bool = False) -> None:
        self._terminal = terminal
        self._root = root
        self._quiet = quiet
        self._verbose = verbose
        self._board = Board()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._offset_s = time.monotonic()
        self._said_at: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            self._board.add(event)
            self._offset_s = time.monotonic() - event.time_s
            match event:
                case ActionFinished():
                    self._finish(event)
                case Message():
                    if event.level != "info" or self._verbose:
                        self._say(paint_error(self._terminal, f"{event.level}: {event.text}"))
                case BuildFinished():
                    self._stopped.set()
                    lines = summary_lines(self._board, self._root, self._terminal, quiet=self._quiet)
                    self._say(*lines)
                case _:
                    pass
            if self._board.running and self._thread is None and not self._quiet:
                self._thread = threading.Thread(target=self._tick, name="console", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop the ticking thread; also after a build that died without BuildFinished."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _say(self, *lines: str) -> None:
        if lines:
            self._terminal.say("\n".join(lines))

    def _finish(self, event: ActionFinished) -> None:
        self._said_at.pop(event.action, None)
        if event.result == "failed":
            self._say(*failure_lines(self._board.failures[-1], self._terminal, self._root))
        elif event.result == "executed" and not self._quiet:
            reason = f" ({event.reason})" if self._verbose and event.reason else ""
            time_text = units.duration(event.duration_s)
            self._say(f"{self._position()} {event.mnemonic} {event.label} {time_text}{reason}")

    def _position(self) -> str:
        total = f"{self._board.total}"
        return f"[{self._board.done:>{len(total)}}/{total}]"

    def _tick(self) -> None:
        while not self._stopped.wait(TICK_S):
            with self._lock:
                now = time.monotonic() - self._offset_s
                for number, action in self._board.running.items():
                    self._tell(number, action, now)

    def _tell(self, number: int, action: RunningAction, now_s: float) -> None:
        said = self._said_at.get(number)
        what = f"{action.started.mnemonic} {action.started.label}"
        if said is None:
            if action.elapsed_s(now_s) >= _START_SHOWN_AFTER_S:
                self._said_at[number] = action.started.time_s
                self._say(f"{self._position()} {what} started")
        elif now_s - said >= _PROGRESS_EVERY_S:
            self._said_at[number] = now_s
            words = " ".join(", ".join(progress_words(action, now_s)).split())
            self._say(f"{self._position()} {what}: {visible(words)}")


def progress_words(action: RunningAction, now_s: float) -> list[str]:
    """`step 120/400`, `loss 1.23`, `900 tokens/s`, `41.0 s`, `1 min 20 s left`."""
    words = []
    progress = action.progress
    if progress:
        words.append(f"{progress.step:,}/{progress.total:,} {progress.unit}")
        words += [units.rate(name, value) for name, value in progress.metrics.items()]
    words.append(units.duration(action.elapsed_s(now_s)))
    remaining = action.remaining_s(now_s)
    if remaining is not None:
        words.append(f"{units.duration(remaining)} left")
    return words
