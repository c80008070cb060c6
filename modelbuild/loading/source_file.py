"""Reading the files of a workspace that people write."""

from __future__ import annotations

import codecs
import os
import re
import stat

from modelbuild.errors import LoadError, Location
from modelbuild.label import Label

BUILD_FILE = "BUILD.models"
MAX_FILE_BYTES = 64 << 20


def read_source(path: str, shown: str, what: str = "BUILD file") -> str:
    """The text of a BUILD, .bzl or rule file. Raises LoadError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise LoadError(f"`{shown}` is not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise LoadError(f"`{shown}` is larger than {MAX_FILE_BYTES >> 20} MiB")
            data = file.read()
    except FileNotFoundError:
        raise LoadError(f"{what} `{shown}` does not exist") from None
    except OSError as error:
        raise LoadError(f"`{shown}` cannot be read: {error.strerror}") from None
    if data.startswith(codecs.BOM_UTF8):
        raise LoadError(
            f"`{shown}` starts with a byte order mark",
            location=Location(shown, 1),
            hint="save it as UTF-8 without BOM",
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise LoadError(
            f"`{shown}` is not UTF-8: byte 0x{data[error.start]:02x}", location=Location(shown, line)
        ) from None


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8: no label can name another."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def str_path(label: Label) -> str:
    """The path of a file as errors show it: relative to the workspace, or `@name//path`."""
    return f"@{label.repository}//{label.path}" if label.repository else label.path


def source_line(root: str, location: Location | None) -> str | None:
    """The line of a workspace file that `location` names, or None when it cannot be read."""
    if location is None or not location.line:
        return None
    try:
        with open(os.path.join(root, location.path), encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if number == location.line:
                    return line.rstrip("\n")
    except OSError:
        return None
    return None


def place_in_call(root: str, location: Location, pattern: str, *, whole_file: bool = False) -> Location:
    """The place of `pattern` (a regular expression) in the call that starts at `location`.

    The call is taken to end before the next line that starts in the first column, apart from `)`, unless the
    `whole_file` is asked for. Gives `location` itself when the pattern is not found: it is in a macro then.
    """
    expression = re.compile(pattern)
    try:
        with open(os.path.join(root, location.path), encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if number < location.line:
                    continue
                if (
                    not whole_file
                    and number > location.line
                    and line[:1] not in {" ", "\t", ")", "]", "\n", "#"}
                ):
                    break
                match = expression.search(line)
                if match:
                    return Location(location.path, number, match.start() + 1)
    except OSError:
        return location
    return location
