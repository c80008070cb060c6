"""The errors a user can cause, and how each is shown and exits.

Every error says what failed, where (file:line), why, and what to try. A Python traceback is
for bugs in modelbuild only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process exits with; a promise to scripts."""

    OK = 0
    ACTION_FAILED = 1
    USAGE = 2
    TEST_FAILED = 3
    ENVIRONMENT = 4
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a workspace file. `line` and `column` start at 1; 0 means unknown."""

    path: str
    line: int = 0
    column: int = 0
    function: str = ""

    def __str__(self) -> str:
        """`path:line:column`, leaving out what is unknown."""
        parts = [self.path]
        if self.line:
            parts.append(str(self.line))
            if self.column:
                parts.append(str(self.column))
        return ":".join(parts)


class ModelbuildError(Exception):
    """A user's mistake or a failed environment: shown without a traceback.

    `message` is one sentence without a period, literals in backticks. `location` is where;
    `notes` are facts that explain it, one a line; `hint` is what to try.
    """

    exit_code = ExitCode.USAGE

    def __init__(
        self,
        message: str,
        *,
        location: Location | None = None,
        notes: tuple[str, ...] = (),
        hint: str | None = None,
        source_line: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.notes = notes
        self.hint = hint
        self.source_line = source_line

    def located(self, location: Location | None, source_line: str | None = None) -> ModelbuildError:
        """This error, placed at `location` unless it already has a place."""
        if self.location is None:
            self.location = location
            self.source_line = source_line
        return self

    def __str__(self) -> str:
        """The whole error as plain text, as a pipe or a log shows it."""
        lines = [f"error: {self.message}"]
        if self.location is not None:
            lines.append(f"  --> {self.location}")
            if self.source_line is not None and self.location.line:
                number = str(self.location.line)
                margin = " " * len(number)
                stripped = self.source_line.rstrip("\n")
                lines += [f" {margin} |", f" {number} | {stripped}"]
                if self.location.column:
                    lines.append(f" {margin} | {' ' * (self.location.column - 1)}^")
        lines += [f"   = {note}" for note in self.notes]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageError(ModelbuildError):
    """The command line is wrong."""


class LoadError(ModelbuildError):
    """A BUILD.models, .bzl or rule file is wrong, or a label leads nowhere."""


class AnalysisError(ModelbuildError):
    """A rule refuses its attributes or its dependencies."""


class EnvironmentFailure(ModelbuildError):
    """The machine lacks something: disk, memory, a package, a readable cache."""

    exit_code = ExitCode.ENVIRONMENT


class CacheError(EnvironmentFailure):
    """The cache cannot be read or written."""


class ActionFailed(ModelbuildError):
    """An action ran and failed, or did not do what it declared."""

    exit_code = ExitCode.ACTION_FAILED


class Interrupted(ModelbuildError):
    """Ctrl-C or SIGTERM."""

    exit_code = ExitCode.INTERRUPTED
