"""The table of a matrix in terminals of all widths."""

from __future__ import annotations

import io

import pytest

from modelbuild.actions.graph import ActionGraph
from modelbuild.cli.matrix_table import _DISPENSABLE, COLUMNS, plain
from modelbuild.cli.terminal import Environment, Terminal
from modelbuild.driver.matrix import MatrixOutcome, MatrixRow
from modelbuild.errors import ExitCode
from modelbuild.label import parse_label
from modelbuild.matrix import MatrixCell

REPORT = {"size_bytes": 608_320, "runner": "qemu-user", "latency_ms": {"median": 421.0}, "parity": {}}


class Screen(io.StringIO):
    """A stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


def table(width: int | None) -> list[str]:
    cell = MatrixCell(
        parse_label("//a:pilot-int4"),
        parse_label("//p:phone-android"),
        "onnx:int8-dynamic",
        artifact_name="pilot-int4",
        platform_name="phone-android",
    )
    rows = (MatrixRow(cell, "unverified", "only Android runs it", REPORT),)
    outcome = MatrixOutcome(
        parse_label("//a:m"), rows, ActionGraph((), {}, (), ()), 9, 12, 3, 4.5, ExitCode.OK
    )
    out = Screen() if width else io.StringIO()
    return plain(outcome, Terminal(Environment(columns=width), "never", out)).splitlines()


def test_a_pipe_gets_every_column() -> None:
    head, row, *rest = table(None)
    assert [name for name in COLUMNS if name not in head] == []
    assert row.endswith("qemu-user  unverified")
    assert not [line for line in rest if line.startswith("no room")]


def missing_in_order(missing: list[str]) -> list[str]:
    return [name for name in _DISPENSABLE if name in missing]


@pytest.mark.parametrize("width", [80, 100, 120, 140, 200])
def test_a_terminal_gets_what_it_has_room_for(width: int) -> None:
    head, row, *rest = table(width)
    assert max(len(head), len(row)) <= width
    missing = [name for name in COLUMNS if name not in head]
    told = [line for line in rest if line.startswith("no room for: ")]
    assert told == ([f"no room for: {', '.join(missing_in_order(missing))}"] if missing else [])
    assert row.startswith("phone-android  pilot-int4  onnx:int8-dynamic  608 kB")
    assert row.endswith("unverified")
    assert (width == 200) == (not missing)
