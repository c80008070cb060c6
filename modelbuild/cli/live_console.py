"""LiveConsole: a build on a terminal, redrawn in place below what scrolls by.

rich is imported by the thread that draws, and only once an action has been running for a moment: a null
build never pays for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelbuild.cli import units
from modelbuild.cli.board import Board
from modelbuild.cli.live_lines import board_lines
from modelbuild.cli.summary import failure_lines, summary_lines
from modelbuild.cli.terminal import Terminal, paint_error
from modelbuild.events import ActionFinished, BuildFinished, BuildStarted, Event, Message

if TYPE_CHECKING:
    from rich.live import Live

Above = Callable[[int, int], Sequence[list[tuple[str, str]]]]
"""(width, height) -> lines of (text, style) that are drawn over the running actions."""

DELAY_S = 0.25
_REFRESH_S = 0.125
_SLOW_S = 1.0
_RESERVED = 8
"""Lines for the running actions where something else is drawn above them."""


class LiveConsole:
    """Running actions with progress, counts, and one scrolling line for each slow action and failure."""

    def __init__(
        self,
        terminal: Terminal,
        root: Path,
        *,
        quiet: bool = False,
        verbose: bool = False,
        above: Above | None = None,
    ) -> None:
        self._terminal = terminal
        self._above = above
        self._root = root
        self._quiet = quiet
        self._verbose = verbose
        self._board = Board()
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None
        self._offset_s = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        lines: list[str] = []
        with self._lock:
            self._board.add(event)
            self._offset_s = min(self._offset_s, time.monotonic() - event.time_s)
            match event:
                case BuildStarted():
                    if not self._quiet:
                        self._thread = threading.Thread(target=self._draw, name="console", daemon=True)
                        self._thread.start()
                case ActionFinished():
                    lines = self._finish(event)
                case Message():
                    if event.level != "info" or self._verbose:
                        lines = [paint_error(self._terminal, f"{event.level}: {event.text}")]
                case _:
                    pass
        self._say(lines)
        if isinstance(event, BuildFinished):
            self.close()
            summary = summary_lines(self._board, self._root, self._terminal, quiet=self._quiet)
            self._say(list(summary))

    def close(self) -> None:
        """Take the drawing off the screen; also after a build that died without BuildFinished."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _finish(self, event: ActionFinished) -> list[str]:
        if event.result == "failed":
            return list(failure_lines(self._board.failures[-1], self._terminal, self._root))
        slow = event.duration_s >= _SLOW_S or self._verbose
        if event.result != "executed" or not slow or self._quiet:
            return []
        mark = self._terminal.paint("✓", "green")
        reason = f" ({event.reason})" if self._verbose and event.reason else ""
        time_text = self._terminal.paint(units.duration(event.duration_s), "dim")
        return [f"{mark} {event.mnemonic} {event.label} {time_text}{reason}"]

    def _say(self, lines: list[str]) -> None:
        if not lines:
            return
        with self._lock:
            live = self._live
            if live is None:
                self._terminal.say("\n".join(lines))
                return
            from rich.text import Text  # noqa: PLC0415

            for line in lines:
                live.console.print(Text.from_ansi(line), soft_wrap=True)

    def _draw(self) -> None:
        while not self._stopped.wait(DELAY_S):
            with self._lock:
                if self._board.running:
                    break
        else:
            return
        self._start_live()
        while not self._stopped.wait(_REFRESH_S):
            with self._lock:
                if self._live is not None:
                    self._live.refresh()
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _start_live(self) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.live import Live  # noqa: PLC0415

        colored = self._terminal.colored(self._terminal.err)
        console = Console(
            file=self._terminal.err,
            force_terminal=True,
            color_system="standard" if colored else None,
            no_color=not colored,
            highlight=False,
            legacy_windows=False,
        )
        live = Live(
            get_renderable=lambda: self._renderable(console),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with self._lock:
            live.start()
            self._live = live

    def _renderable(self, console: Any) -> Any:
        from rich.console import Group  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        width, height = console.size
        now = time.monotonic() - self._offset_s
        above = list(self._above(width, height - _RESERVED)) if self._above else []
        rows = [*above, *board_lines(self._board, now, width, height - len(above))]
        return Group(
            *(
                Text.assemble(*((text, style) for text, style in row), no_wrap=True, overflow="crop")
                for row in rows
            )
        )
