"""What Python's `os` lacks of the file system."""

from __future__ import annotations

import ctypes
import os


def sync_file_system(path: str) -> None:
    """Waits until the file system that holds `path` has written everything (syncfs, else sync)."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        if syncfs is None or syncfs(fd) != 0:
            os.sync()
    finally:
        os.close(fd)
