from __future__ import annotations

import io

import pytest

from modelbuild.cli.terminal import Environment, Terminal, paint_error, visible


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("color", "variables", "tty", "colored"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_colored(color: str, variables: dict[str, str], tty: bool, colored: bool) -> None:
    stream = Tty() if tty else io.StringIO()
    terminal = Terminal(Environment.read(variables), color, stream, stream)  # type: ignore[arg-type]
    assert terminal.colored(stream) is colored
    assert terminal.paint("x", "bold") == ("\x1b[1mx\x1b[0m" if colored else "x")


@pytest.mark.parametrize(
    ("variables", "live"),
    [({}, True), ({"CI": "true"}, False), ({"CI": "0"}, True), ({"TERM": "dumb"}, False)],
)
def test_live(variables: dict[str, str], live: bool) -> None:
    assert Terminal(Environment.read(variables), err=Tty()).live is live


def test_width() -> None:
    assert Terminal(Environment.read({"COLUMNS": "40"}), err=io.StringIO()).width == 40
    assert Terminal(Environment.read({"COLUMNS": "wide"}), err=io.StringIO()).width == 100


def test_paint_error() -> None:
    text = (
        "error: no rule: `x`\n  --> BUILD.models:3:5\n   |\n 3 | x()\n   |     ^\n   = a fact\nhint: try: y"
    )
    painted = paint_error(Terminal(color="always"), text)
    assert painted == (
        "\x1b[1;31merror:\x1b[0m\x1b[1m no rule: `x`\x1b[0m\n"
        "  \x1b[34m-->\x1b[0m BUILD.models:3:5\n   |\n 3 | x()\n   |     \x1b[1;31m^\x1b[0m\n"
        "   \x1b[34m=\x1b[0m a fact\n\x1b[36mhint:\x1b[0m try: y"
    )
    assert paint_error(Terminal(color="never"), text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本", "plain ü 日本"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x07\x00\x7f\x9b", "^[[2J^G^@^?\\x9b"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_control_characters_do_nothing(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert paint_error(Terminal(color="never"), f"error: {text}") == f"error: {shown}"
