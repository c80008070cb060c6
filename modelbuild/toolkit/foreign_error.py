"""What somebody else's library raises, as a tool's user is to read it. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from modelbuild.toolkit.request import ToolError


@contextmanager
def foreign_errors(message: str, *kinds: type[Exception]) -> Iterator[None]:
    """Raise what is raised inside as ToolError: `message`, and the first line of the cause.

    kinds: of exceptions; Exception for libraries whose exceptions share no base of their own.
    """
    try:
        yield
    except kinds as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ToolError(f"{message}: {first_line}") from error
