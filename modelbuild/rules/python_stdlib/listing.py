"""Which files make up the standard library's source."""

from __future__ import annotations

import os

_SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests", "turtledemo"}
)
_GENERATED = ("_sysconfigdata", "_sysconfig_vars", "config-")
"""Beginnings of names that an installation writes for its own machine."""


def list_modules(root: str) -> tuple[list[str], list[str]]:
    """Paths of `.py` files below `root`, relative to it, sorted, and the folders that were listed, absolute.

    Links are not followed.
    """
    found: list[str] = []
    listed: list[str] = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith(_GENERATED)
        )
        listed.append(folder)
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == "." else inside.replace(os.sep, "/") + "/"
        found += [prefix + name for name in files if name.endswith(".py") and not name.startswith(_GENERATED)]
    return sorted(found), listed
