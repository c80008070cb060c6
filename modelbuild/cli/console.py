"""The console of a build: plain or live, and the files that flags ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.cli.terminal import Terminal

if TYPE_CHECKING:
    from modelbuild.cli.event_files import ResultSink
    from modelbuild.cli.live_console import Above, LiveConsole
    from modelbuild.cli.plain_console import PlainConsole
    from modelbuild.events import Event, EventSink


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """What the flags of a build say about showing it. events, profile: paths of files to write."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    events: str | None = None
    profile: str | None = None
    above: Above | None = None


@contextmanager
def open_console(
    terminal: Terminal, root: Path, options: ConsoleOptions
) -> Iterator[tuple[EventSink, ResultSink | None]]:
    """The sink for one build's events, and the one that collects the result for `--json`.

    Raises UsageError when a file of `options` cannot be written.
    """
    sinks: list[EventSink] = []
    result: ResultSink | None = None
    if options.events or options.profile or options.json:
        # A build that shows itself on a console only does not pay for these.
        from modelbuild.cli.event_files import JsonlSink, ProfileSink, ResultSink, open_for_writing  # noqa: PLC0415

        if options.events:
            sinks.append(JsonlSink(open_for_writing(options.events, "--events")))
        if options.profile:
            sinks.append(ProfileSink(open_for_writing(options.profile, "--profile")))
        if options.json:
            result = ResultSink()
            sinks.append(result)
    console: LiveConsole | PlainConsole
    quiet, verbose = options.quiet, options.verbose
    if terminal.live:
        from modelbuild.cli.live_console import LiveConsole  # noqa: PLC0415

        console = LiveConsole(terminal, root, quiet=quiet, verbose=verbose, above=options.above)
    else:
        from modelbuild.cli.plain_console import PlainConsole  # noqa: PLC0415

        console = PlainConsole(terminal, root, quiet=quiet, verbose=verbose)
    sinks.append(console)
    try:
        yield tee(sinks), result
    finally:
        console.close()


def tee(sinks: Sequence[EventSink]) -> EventSink:
    """A sink that hands every event to all of `sinks`, in order."""
    if len(sinks) == 1:
        return sinks[0]

    def hand_on(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return hand_on
