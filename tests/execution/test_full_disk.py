"""A disk that fills up while an action runs: the cache's fault, not the tool's, and over when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelbuild.cache.disk import DiskBlobStore
from modelbuild.errors import CacheError
from modelbuild.execution.local import LocalExecutor
from modelbuild.tool import ShellTool

OUT = "modelbuild-out/pkg/out"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_the_caches_fault_and_passes(bench: Any, small: Path) -> None:
    blobs = DiskBlobStore(str(small))
    with LocalExecutor(str(small), blobs) as executor:

        def run(command: str) -> str:
            prepared = bench.prepare(ShellTool(), command=command)
            result = executor.execute(prepared, bench.context(prepared))
            assert result is not None
            return blobs.read(result.outputs[OUT].digest).decode()

        assert run(f"echo 1 > {OUT}") == "1\n"
        with pytest.raises(CacheError, match="the disk of the cache filled up") as caught:
            run(f"head -c 5000000 /dev/zero > {OUT}")
        assert caught.value.exit_code == 4
        # What the failed action left is removed at once, so that the next one has room.
        assert run(f"echo 2 > {OUT}") == "2\n"
        with pytest.raises(OSError, match="No space"):
            (small / "fill").write_bytes(bytes(4 << 20))
        with pytest.raises(CacheError):
            run(f"echo 3 > {OUT}")
        os.unlink(small / "fill")
        assert run(f"echo 3 > {OUT}") == "3\n"
