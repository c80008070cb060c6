"""Terminal: the streams of this process, and what may be written to them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

ColorMode = Literal["auto", "always", "never"]

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "1;31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
_DEFAULT_WIDTH = 100
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and line feed."""


@dataclass(frozen=True)
class Environment:
    """Everything the command line takes from environment variables; they are read nowhere else."""

    cache_dir: str | None = None
    no_color: bool = False
    columns: int | None = None
    ci: bool = False
    dumb: bool = False

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """MODELBUILD_CACHE_DIR, NO_COLOR (any value but empty), COLUMNS, CI, TERM."""
        columns = variables.get("COLUMNS", "")
        return cls(
            cache_dir=variables.get("MODELBUILD_CACHE_DIR") or None,
            no_color=bool(variables.get("NO_COLOR")),
            columns=int(columns) if columns.isdecimal() and int(columns) > 0 else None,
            ci=variables.get("CI", "").lower() not in ("", "0", "false"),
            dumb=variables.get("TERM") == "dumb",
        )


@dataclass(frozen=True)
class Terminal:
    """stdout carries data, stderr everything said to a person."""

    environment: Environment = field(default_factory=Environment)
    color: ColorMode = "auto"
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)

    def write(self, text: str) -> None:
        """Data, to stdout; a newline is added when it is missing."""
        self.out.write(text if text.endswith("\n") or not text else text + "\n")

    def write_json(self, document: Any) -> None:
        """A JSON document, to stdout; what is no text in the name of a file becomes an escape."""
        import json  # noqa: PLC0415 - most commands write none

        text = json.dumps(document, indent=2, ensure_ascii=False)
        self.write(text.encode("utf-8", "backslashreplace").decode())

    def say(self, text: str) -> None:
        """For a person, to stderr."""
        self.err.write(text if text.endswith("\n") else text + "\n")
        self.err.flush()

    def colored(self, stream: TextIO) -> bool:
        """Whether escape codes may go to `stream`."""
        if self.color != "auto":
            return self.color == "always"
        return stream.isatty() and not self.environment.no_color and not self.environment.dumb

    def paint(self, text: str, style: str, stream: TextIO | None = None) -> str:
        """`text` in a style, when its stream (stderr unless told) shows colours."""
        if not self.colored(stream or self.err):
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"

    @property
    def live(self) -> bool:
        """Whether lines of stderr can be redrawn in place."""
        return self.err.isatty() and not self.environment.ci and not self.environment.dumb

    @property
    def width(self) -> int:
        """Columns of the terminal, 100 when there is none."""
        if self.environment.columns:
            return self.environment.columns
        try:
            return os.get_terminal_size(self.err.fileno()).columns or _DEFAULT_WIDTH
        except (OSError, ValueError):
            return _DEFAULT_WIDTH


def visible(text: str) -> str:
    """`text` as a terminal may have it: no colours, and control characters as `^[`, which does nothing."""
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda match: _caret(match.group()), _COLOUR.sub("", text))


def _caret(character: str) -> str:
    number = ord(character)
    return f"^{chr(number ^ 64)}" if number < 128 else f"\\x{number:02x}"


def paint_error(terminal: Terminal, text: str) -> str:
    """Colours the text of a ModelbuildError: the word `error`, the arrow, the carets, the hint."""
    text = visible(text)
    if not terminal.colored(terminal.err):
        return text
    lines = []
    for line in text.split("\n"):
        head, colon, rest = line.partition(":")
        stripped = line.lstrip()
        if colon and head in ("error", "warning"):
            style = "red" if head == "error" else "yellow"
            lines.append(terminal.paint(f"{head}:", style) + terminal.paint(rest, "bold"))
        elif colon and head == "hint":
            lines.append(terminal.paint("hint:", "cyan") + rest)
        elif stripped.startswith("--> "):
            indent = line[: len(line) - len(stripped)]
            lines.append(f"{indent}{terminal.paint('-->', 'blue')}{stripped[3:]}")
        elif stripped.strip("| ") == "^":
            lines.append(line.replace("^", terminal.paint("^", "red")))
        elif stripped.startswith("= "):
            lines.append(line.replace("=", terminal.paint("=", "blue"), 1))
        else:
            lines.append(line)
    return "\n".join(lines)
