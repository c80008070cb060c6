"""The table of sizes: a line for each format of a model, or for each cell of a matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from modelbuild.cli import units
from modelbuild.cli.terminal import Terminal

if TYPE_CHECKING:
    from modelbuild.runtime_toolchain import Footprint

_WIDTH = 160
"""Columns of a table that goes to no terminal."""
_SIZES = ("on disk", "weights", "KV cache", "runtime", "in memory")


def size_table(
    names: Sequence[str], rows: Iterable[tuple[Sequence[str], Footprint | None, str]], terminal: Terminal
) -> Iterator[str]:
    """The lines of a table. names: of the first columns. rows: their texts, sizes, and whether it fits."""
    from rich.console import Console  # noqa: PLC0415 - only a table needs it
    from rich.table import Table  # noqa: PLC0415

    console = Console(
        width=terminal.environment.columns or (None if terminal.out.isatty() else _WIDTH),
        no_color=not terminal.colored(terminal.out),
        force_terminal=terminal.colored(terminal.out),
        highlight=False,
    )
    table = Table(box=None, padding=(0, 1), header_style="dim" if terminal.colored(terminal.out) else "")
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in _SIZES:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fits")
    for texts, footprint, fits in rows:
        table.add_row(*texts, *_sizes(footprint), fits)
    with console.capture() as capture:
        console.print(table)
    yield from (f" {line}".rstrip() for line in capture.get().splitlines())


def _sizes(footprint: Footprint | None) -> list[str]:
    if footprint is None:
        return [""] * len(_SIZES)
    counts = (footprint.disk, footprint.weights, footprint.kv_cache, footprint.runtime, footprint.ram)
    return [units.size(count) for count in counts]


def footprint_document(footprint: Footprint) -> dict[str, Any]:
    """Bytes on disk and in memory, as `--json` shows them."""
    return {
        "disk": footprint.disk,
        "memory": {
            "weights": footprint.weights,
            "kv_cache": footprint.kv_cache,
            "runtime": footprint.runtime,
            "total": footprint.ram,
        },
        "detail": dict(footprint.detail),
    }
