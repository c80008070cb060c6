"""The table of a finished matrix: text for a terminal, Markdown, and the JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelbuild.cli import units
from modelbuild.cli.terminal import Terminal
from modelbuild.driver.matrix import MatrixOutcome, MatrixRow

MATRIX_SCHEMA = 1
_STYLES = {"pass": "green", "fail": "red", "broken": "red", "unverified": "yellow", "impossible": "dim"}

COLUMNS = (
    "device",
    "artifact",
    "format",
    "size",
    "memory",
    "exact match",
    "top-1 teacher",
    "KL teacher",
    "parity top-1",
    "max error",
    "latency",
    "runner",
    "verdict",
)
"""Memory is predicted; quality is told against the teacher, parity against the model in torch."""
_DISPENSABLE = (
    *(
        "max error",
        "KL teacher",
        "runner",
        "exact match",
        "memory",
        "parity top-1",
        "top-1 teacher",
        "latency",
    ),
)
"""Left out of a terminal that is too narrow, in this order."""


def cells_of(row: MatrixRow) -> tuple[str, ...]:
    """The texts of one line of the table; a dash for what is not known."""
    report = row.report
    parity = report.get("parity") or {}
    latency = report.get("latency_ms")
    footprint = row.cell.footprint
    emulated = report.get("runner") == "qemu-user"
    return (
        row.cell.platform_name,
        row.cell.artifact_name,
        row.cell.format or "-",
        units.size(report["size_bytes"]) if report else "-",
        units.size(footprint.ram) if footprint else "-",
        _share(parity.get("exact_match")),
        _share(parity.get("teacher_top1")),
        _number(parity.get("teacher_kl")),
        _share(parity.get("top1_agreement")),
        _number(parity.get("max_error")),
        f"{_milliseconds(latency['median'])}{'*' if emulated else ''}" if latency else "-",
        report.get("runner", "-"),
        row.verdict,
    )


def summary(outcome: MatrixOutcome) -> str:
    """What sharing saved, in one sentence."""
    counts: dict[str, int] = {}
    for row in outcome.rows:
        counts[row.verdict] = counts.get(row.verdict, 0) + 1
    told = ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items()))
    cells, actions = units.count(len(outcome.rows), "cell"), units.count(outcome.actions, "action")
    return (
        f"{cells}{': ' if told else ''}{told}. {actions}, of which {outcome.executed:,} ran now, "
        f"in {units.duration(outcome.wall_s)}; "
        f"a script for each device would have run {outcome.separate_actions:,}."
    )


def plain(outcome: MatrixOutcome, terminal: Terminal) -> str:
    """A table with aligned columns; below it the reasons, and what the matrix saved.

    A terminal gets the columns that it has room for; a file or a pipe gets all.
    """
    rows = [cells_of(row) for row in outcome.rows]
    widths = [max(len(line[i]) for line in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    left_out = _left_out(widths, terminal.width) if terminal.out.isatty() else ()
    shown = [index for index, name in enumerate(COLUMNS) if name not in left_out]
    widths = [widths[index] for index in shown]
    lines = [terminal.paint(_line([COLUMNS[index] for index in shown], widths), "bold", terminal.out)]
    for row, texts in zip(outcome.rows, rows, strict=True):
        line = _line([texts[index] for index in shown[:-1]], widths[:-1])
        lines.append(f"{line}  {terminal.paint(row.verdict, _STYLES[row.verdict], terminal.out)}")
    lines.append("")
    if left_out:
        lines.append(f"no room for: {', '.join(left_out)}")
    for reason, names in _reasons(outcome).items():
        lines.append(f"{reason}: {', '.join(names)}")
    if any(row.report.get("runner") == "qemu-user" for row in outcome.rows):
        lines.append("* emulated: the time says nothing of the device")
    return "\n".join([*lines, "", summary(outcome)])


def markdown(outcome: MatrixOutcome) -> str:
    """The table for a pull request or a release note."""
    head = [f"| {' | '.join(COLUMNS)} | reason |", f"|{'---|' * (len(COLUMNS) + 1)}"]
    body = [
        f"| {' | '.join(_escaped(text) for text in (*cells_of(row), row.reason))} |" for row in outcome.rows
    ]
    return "\n".join([*head, *body, "", summary(outcome), ""])


def document(outcome: MatrixOutcome) -> dict[str, Any]:
    """The JSON document, schema 1."""
    return {
        "schema": MATRIX_SCHEMA,
        "target": str(outcome.label),
        "actions": outcome.actions,
        "executed": outcome.executed,
        "separate_actions": outcome.separate_actions,
        "wall_s": round(outcome.wall_s, 3),
        "exit_code": int(outcome.exit_code),
        "cells": [_cell(row) for row in outcome.rows],
    }


def _cell(row: MatrixRow) -> dict[str, Any]:
    cell = row.cell
    return {
        "artifact": str(cell.artifact),
        "platform": str(cell.platform),
        "format": cell.format,
        "toolchain": str(cell.toolchain) if cell.toolchain else None,
        "binary": str(cell.binary) if cell.binary else None,
        "verdict": row.verdict,
        "reason": row.reason,
        "notes": list(cell.notes),
        "report": dict(row.report) or None,
    }


def _left_out(widths: Sequence[int], limit: int) -> Sequence[str]:
    """The columns that have to go for lines of at most `limit` characters."""
    size = dict(zip(COLUMNS, widths, strict=True))
    too_much = sum(widths) + 2 * (len(widths) - 1) - limit
    for count in range(len(_DISPENSABLE) + 1):
        if sum(size[name] + 2 for name in _DISPENSABLE[:count]) >= too_much:
            return _DISPENSABLE[:count]
    return _DISPENSABLE


def _reasons(outcome: MatrixOutcome) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in outcome.rows:
        if row.reason:
            # The format of what was made stands in the table; there may be several that cannot be.
            format_ = f" as {row.cell.format}" if row.verdict == "impossible" and row.cell.format else ""
            found.setdefault(f"{row.verdict}: {row.reason}", []).append(
                f"{row.cell.platform_name}: {row.cell.artifact_name}{format_}"
            )
    return found


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
