from __future__ import annotations

import pytest

from modelbuild.cli.board import Board
from modelbuild.cli.live_lines import board_lines
from modelbuild.events import ActionFinished, ActionProgress, ActionStarted, AnalysisFinished


def make_board(running: int = 1) -> Board:
    board = Board()
    board.add(AnalysisFinished(0.1, 2, 9, 9, from_snapshot=False))
    board.add(ActionFinished(0.2, 90, "//a:done", "Genrule", "k", "local_hit", 0, 0))
    board.add(ActionFinished(0.2, 91, "//a:done", "Genrule", "k", "executed", 1.5, 0))
    for number in range(running):
        board.add(ActionStarted(1.0 + number, number, f"//targets:teacher{number}", "Train", "", "", None))
        board.add(ActionProgress(2.0, number, 50, 400, "steps", {}))
        board.add(ActionProgress(3.0, number, 100, 400, "steps", {"loss": 1.5, "tokens_per_s": 900.0}))
    return board


def text(board: Board, width: int, height: int = 24) -> list[str]:
    return ["".join(part for part, _ in row) for row in board_lines(board, 3.0, width, height)]


def test_wide() -> None:
    assert text(make_board(), 120) == [
        "⠼ Train //targets:teacher0  ━━━━━───────────────  100/400 steps  loss 1.5  900 tokens/s  2.0 s, 6.0 s left",
        "1 executed, 1 cached, 0 unchanged, 0 failed; 2 of 9 actions  3.0 s  critical path 1.5 s",
    ]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
def test_no_row_is_wider_than_the_terminal(width: int) -> None:
    rows = text(make_board(3), width)
    assert all(len(row) < width for row in rows[:-1])
    assert len(rows[-1]) < width or width < 60


def test_no_more_rows_than_the_terminal() -> None:
    rows = text(make_board(30), 80, 10)
    assert len(rows) <= 10
    assert rows[-2] == "  and 23 more running"


def test_long_label_keeps_its_end() -> None:
    board = Board()
    board.add(ActionStarted(0, 1, "//a/very/long/package/name/indeed:the-student", "Distill", "", "", None))
    assert "…" in text(board, 40)[0]
    assert ":the-student" in text(board, 40)[0]


def test_estimate_gives_a_bar_and_time_left() -> None:
    board = Board()
    board.add(ActionStarted(1, 1, "//a:b", "Train", "", "", 8.0))
    assert "2.0 s, 6.0 s left" in text(board, 80)[0]
    assert "━━━━━───" in text(board, 80)[0]
