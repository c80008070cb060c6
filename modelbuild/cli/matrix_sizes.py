"""What `modelbuild size` says of an artifact matrix: the predicted size of every cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelbuild.cli import units
from modelbuild.cli.size_table import footprint_document, size_table
from modelbuild.cli.terminal import Terminal
from modelbuild.driver.matrix import MatrixPlan
from modelbuild.matrix import MatrixCell

_COLUMNS = ("device", "artifact", "format")


def matrix_lines(plan: MatrixPlan, terminal: Terminal) -> Iterator[str]:
    """One line for each cell; where nothing can be made, why."""
    yield terminal.paint(str(plan.label), "bold", terminal.out) + f" ({units.count(len(plan.cells), 'cell')})"
    yield ""
    rows = [
        (
            (
                cell.platform_name or str(cell.platform),
                cell.artifact_name or str(cell.artifact),
                cell.format or "-",
            ),
            cell.footprint,
            "yes" if cell.binary else cell.reason,
        )
        for cell in plan.cells
    ]
    yield from size_table(_COLUMNS, rows, terminal)


def matrix_document(plan: MatrixPlan) -> dict[str, Any]:
    """The matrix as an object of `--json`."""
    return {"label": str(plan.label), "cells": [_cell_document(cell) for cell in plan.cells]}


def _cell_document(cell: MatrixCell) -> dict[str, Any]:
    found: dict[str, Any] = {
        "artifact": str(cell.artifact),
        "platform": str(cell.platform),
        "format": cell.format or None,
        "toolchain": str(cell.toolchain) if cell.toolchain else None,
        "reason": cell.reason,
    }
    return found | (footprint_document(cell.footprint) if cell.footprint else {})
