"""Golden files: texts that are committed, and compared with what a program says today."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

GOLDEN = Path("tests/golden")


def assert_golden(name: str, actual: str, directory: Path = GOLDEN) -> None:
    """Compare `actual` with a committed file; MODELBUILD_UPDATE_GOLDEN=1 rewrites it.

    Raises AssertionError with a diff.
    """
    path = directory / name
    if os.environ.get("MODELBUILD_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(actual)
    expected = path.read_text() if path.exists() else ""
    if actual != expected:
        diff = difflib.unified_diff(
            expected.splitlines(), actual.splitlines(), f"{path} (expected)", "actual", lineterm=""
        )
        raise AssertionError("\n".join(diff))
