"""Stamps: what `stat` says of a path, to see at once whether anything may have happened to it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection

Stamp = list[int]
"""Mode, size, mtime_ns, ctime_ns, inode. Empty: there is nothing at the path. [0, errno]: nobody can tell."""

ABSENT: Stamp = []
RACY: Stamp = [-1]
"""Equal to no stamp: the file was written so lately that a second write might leave the same stamp."""

_TIMESTAMP_GRANULE_NS = 20_000_000


def stamp(path: str) -> Stamp:
    """The stamp of what `path` leads to, symlinks followed."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except OSError as error:  # A link to itself, a directory that nobody may enter: whoever needs it says so.
        return [0, error.errno or 0]
    return [status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def stamp_before_reading(path: str) -> Stamp:
    """The stamp of a file whose content is about to be read; RACY when it is too young to be trusted."""
    found = stamp(path)
    if len(found) > 2 and time.time_ns() - max(found[2], found[3]) < _TIMESTAMP_GRANULE_NS:
        return RACY
    return found


def stamp_after_reading(path: str, started_ns: int) -> Stamp:
    """The stamp of a path that was read some time after `started_ns`.

    RACY when it may have changed since then: what was read is then not known to be what is there.
    """
    found = stamp(path)
    if len(found) > 2 and max(found[2], found[3]) > started_ns - _TIMESTAMP_GRANULE_NS:
        return RACY
    return found


def listing(path: str, own: Collection[str]) -> str:
    """A digest of the names in a directory; empty when it is none.

    own: absolute paths that builds make themselves, which say nothing about the workspace.
    """
    try:
        with os.scandir(path) as entries:
            names = sorted(
                f"{entry.name}/" if _is_directory(entry) else entry.name
                for entry in entries
                if entry.path not in own
            )
    except OSError:  # None, or none that may be read: loading will say which.
        return ""
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
