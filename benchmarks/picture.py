"""Draws pictures of a real build from its recorded events, with the code that draws it on a terminal.

    modelbuild build //targets:drone-int4 --events FILE      (on a cold cache)
    python -m benchmarks.picture FILE [--at SECONDS] [--into docs/pictures] [--root WORKSPACE]

`build-running.svg` is the terminal at a moment of the build, `build-finished.svg` at its end. The outputs have
to be in modelbuild-out still: the summary shows their sizes.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from modelbuild import events
from modelbuild.cli.live_console import LiveConsole
from modelbuild.cli.live_lines import board_lines
from modelbuild.cli.terminal import Environment, Terminal
from modelbuild.events import ActionFinished, ActionProgress, BuildFinished, BuildStarted, Event

ROOT = Path(__file__).parents[1]
WIDTH = 96
_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
 font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: ui-sans-serif, sans-serif; font-size: 18px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""rich's picture without its web font: a README loads nothing from elsewhere."""


class Still(LiveConsole):
    """The console of a terminal that nobody redraws."""

    def _draw(self) -> None:
        return

    def drawing(self, now_s: float, width: int, height: int) -> list[Text]:
        """What would stand below the lines that have scrolled by."""
        return [Text.assemble(*row) for row in board_lines(self._board, now_s, width, height)]


def read_events(path: Path) -> list[Event]:
    """The events that `--events` wrote. Raises ValueError for another schema."""
    classes = {events.event_name(kind): kind for kind in Event.__subclasses__()}
    found = []
    for line in path.read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        if row["schema"] != events.EVENTS_SCHEMA:
            raise ValueError(f"events of schema {row['schema']}")
        kind = classes[row["event"]]
        names = {field.name for field in dataclasses.fields(kind)}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k in names}
        found.append(kind(**values))  # type: ignore[arg-type]
    return found


def telling_moment(recorded: Sequence[Event]) -> float:
    """When most has to be seen: late in the longest action that reports progress."""
    told = {event.action for event in recorded if isinstance(event, ActionProgress)}
    longest = max(
        (e for e in recorded if isinstance(e, ActionFinished) and (e.action in told or not told)),
        key=lambda event: event.duration_s,
    )
    return longest.time_s - 0.35 * longest.duration_s


def picture(recorded: Sequence[Event], until_s: float, name: str, root: Path = ROOT) -> str:
    """An SVG of the terminal after the events up to `until_s`. root: the workspace that was built."""
    said = io.StringIO()
    console = Still(Terminal(Environment(columns=WIDTH), "always", io.StringIO(), said), root)
    for event in recorded:
        if event.time_s <= until_s:
            console(event)
    console.close()
    screen = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    started = next(event for event in recorded if isinstance(event, BuildStarted))
    command = f"modelbuild {started.command} {' '.join(started.patterns)}"
    screen.print(Text("$ ", "green") + Text(command, "bold"))
    for line in said.getvalue().splitlines():
        screen.print(Text.from_ansi(line), soft_wrap=True)
    if not any(isinstance(event, BuildFinished) and event.time_s <= until_s for event in recorded):
        for text in console.drawing(until_s, WIDTH, 20):
            screen.print(text, no_wrap=True, overflow="crop")
    return screen.export_svg(title="modelbuild", theme=MONOKAI, code_format=_SVG, unique_id=name)


def draw(path: Path, folder: Path, at_s: float | None = None, root: Path = ROOT) -> None:
    """Write both pictures."""
    recorded = read_events(path)
    folder.mkdir(parents=True, exist_ok=True)
    moment = telling_moment(recorded) if at_s is None else at_s
    for name, until_s in (("build-running", moment), ("build-finished", recorded[-1].time_s)):
        (folder / f"{name}.svg").write_text(picture(recorded, until_s, name, root))


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--at", type=float)
    parser.add_argument("--into", type=Path, default=ROOT / "docs/pictures")
    parser.add_argument("--root", type=Path, default=ROOT)
    arguments = parser.parse_args()
    draw(arguments.events, arguments.into, arguments.at, arguments.root)


if __name__ == "__main__":
    main()
