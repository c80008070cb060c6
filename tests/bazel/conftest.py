"""One Bazel server for all tests of this directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bazel.twins import Twins


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[Twins]:
    """Two empty workspaces. Skips where there is no Bazel."""
    if shutil.which("bazel") is None:
        pytest.skip("bazel is not installed (Debian: apt-get install bazel-bootstrap)")
    pair = Twins(tmp_path.resolve())
    yield pair
    pair.close()
