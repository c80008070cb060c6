"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelbuild.cache.atomic_file import replace_file, temporary_name, write_new


def test_replace_makes_directories_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "ab" / "file"
    for content in (b"first", b"second"):
        replace_file(str(target), content, temporary_dir=str(tmp_path / "tmp"))
        assert target.read_bytes() == content
    assert os.listdir(tmp_path / "tmp") == []


def test_a_failed_write_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        write_new(str(small_disk / "big"), bytes(2 << 20), 0o644)
    assert os.listdir(small_disk) == []


def test_readers_see_old_or_new(tmp_path: Path) -> None:
    target = tmp_path / "file"
    wholes = {bytes([number]) * 10_000 for number in range(4)}

    def write(content: bytes) -> None:
        for _ in range(20):
            replace_file(str(target), content, temporary_dir=str(tmp_path / "tmp"))
            assert target.read_bytes() in wholes

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, wholes))


def test_temporary_names_differ() -> None:
    assert len({temporary_name() for _ in range(1000)}) == 1000
