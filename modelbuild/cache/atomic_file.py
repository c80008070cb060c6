"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets

_TOKEN = secrets.token_hex(6)
_COUNTER = itertools.count()


def temporary_name() -> str:
    """A name that no other file, thread, process or machine on the same cache uses."""
    return f"{os.getpid()}-{_TOKEN}-{next(_COUNTER)}"


def write_new(path: str, data: bytes, mode: int) -> None:
    """Creates `path` with `data`, or raises OSError and leaves nothing there."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
    except BaseException:
        discard(path)
        raise


def rename_into(source: str, target: str) -> None:
    """Renames `source`, making the directory of `target` if it is not there yet."""
    try:
        os.rename(source, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)


def replace_file(target: str, data: bytes, *, temporary_dir: str, mode: int = 0o644) -> None:
    """Puts `data` at `target` in one step; `temporary_dir` is on the same file system."""
    temporary = f"{temporary_dir}/{temporary_name()}"
    try:
        write_new(temporary, data, mode)
    except FileNotFoundError:
        os.makedirs(temporary_dir, exist_ok=True)
        write_new(temporary, data, mode)
    try:
        rename_into(temporary, target)
    except BaseException:
        discard(temporary)
        raise


def discard(path: str) -> None:
    """Removes a file if it can, while another error is on its way to the user."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove(path: str) -> None:
    """Removes a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
