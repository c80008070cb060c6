"""MatrixBoard: how far each cell of a matrix is, while it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from modelbuild.driver.matrix import MatrixPlan
from modelbuild.events import ActionFinished, ActionStarted

Row = list[tuple[str, str]]
"""Pieces of one line: text and style."""

_MARKS = {"waiting": ("·", "dim"), "running": ("▸", "cyan"), "made": ("✓", "green"), "broken": ("✗", "red")}


@dataclass
class MatrixBoard:
    """Folds events into one line for each cell."""

    plan: MatrixPlan
    done: set[int] = field(default_factory=set)
    running: dict[int, str] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    def add(self, event: object) -> None:
        """Take one event in."""
        if isinstance(event, ActionStarted):
            self.running[event.action] = event.progress or event.mnemonic
        elif isinstance(event, ActionFinished):
            self.running.pop(event.action, None)
            (self.failed if event.result == "failed" else self.done).add(event.action)

    def rows(self, width: int, height: int) -> Sequence[Row]:
        """The cells that are not finished first when there are more than `height` lines."""
        cells = [self._row(index) for index in range(len(self.plan.cells))]
        if len(cells) > height:
            order = sorted(range(len(cells)), key=lambda i: (_urgency(self._state(i)), i))
            shown = sorted(order[: max(height - 1, 0)])
            left = len(cells) - len(shown)
            return [*(cells[i] for i in shown), [(f"  … and {left} more cells", "dim")]]
        return cells

    def _state(self, index: int) -> str:
        needed = self.plan.needed[index]
        if not needed or needed & self.failed:
            return "broken"
        if needed <= self.done:
            return "made"
        return "running" if any(each in needed for each in self.running) else "waiting"

    def _row(self, index: int) -> Row:
        cell, needed = self.plan.cells[index], self.plan.needed[index]
        state = self._state(index)
        mark, style = _MARKS[state]
        name = f"{cell.platform_name:<15} {cell.artifact_name:<16} {cell.format or '-':<18} "
        if not needed:
            return [("- ", "dim"), (name, "dim"), (f"impossible: {cell.reason}", "dim")]
        count = f"{len(needed & self.done)}/{len(needed)} "
        doing = next((text for each, text in self.running.items() if each in needed), "")
        return [(f"{mark} ", style), (name, ""), (count, "dim"), (doing, "cyan")]


def _urgency(state: str) -> int:
    return ("running", "broken", "waiting", "made").index(state)
