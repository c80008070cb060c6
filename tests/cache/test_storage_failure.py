"""What the operating system refuses, in words."""

from __future__ import annotations

import errno
import os

import pytest

from modelbuild.cache.storage_failure import storage_failure
from modelbuild.errors import ExitCode


@pytest.mark.parametrize(
    ("number", "sentence", "hint"),
    [
        (errno.ENOSPC, "no space is left for the cache", "cache gc"),
        (errno.EDQUOT, "no space is left for the cache", "cache gc"),
        (errno.EROFS, "the cache is read-only", "--cache-dir"),
        (errno.EACCES, "the cache is read-only", "--cache-dir"),
        (errno.EIO, "the cache cannot use", ""),
    ],
)
def test_each_refusal_is_named(number: int, sentence: str, hint: str) -> None:
    error = storage_failure(OSError(number, os.strerror(number)), "/cache/cas")
    assert sentence in error.message
    assert "`/cache/cas`" in error.message
    assert hint in (error.hint or "")
    assert error.notes == (os.strerror(number),)
    assert error.exit_code == ExitCode.ENVIRONMENT
