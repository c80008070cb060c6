"""DiskActionCache beyond the contract: damaged entries, disks that refuse, encodings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.cache.disk_action_cache import DiskActionCache
from modelbuild.digest import digest_bytes
from modelbuild.errors import CacheError

KEY, OTHER_KEY = digest_bytes(b"key").sha256, digest_bytes(b"other").sha256
RESULT = ActionResult(
    {"out/x": OutputDigest("file", digest_bytes(b"output"))}, digest_bytes(b"log"), 1.5, 100
)

digests = st.binary(max_size=4).map(digest_bytes)
results = st.builds(
    ActionResult,
    st.dictionaries(
        st.text(max_size=8),
        st.builds(OutputDigest, st.sampled_from(["file", "tree"]), digests, st.booleans()),
    ),
    st.none() | digests,
    st.floats(0, 1e6).map(lambda seconds: round(seconds, 6)),
    st.integers(0, 1 << 50),
)


def _path(root: Path, key: str = KEY) -> str:
    return f"{root}/ac/{key[:2]}/{key}"


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(result=results)
def test_results_come_back_as_they_were(tmp_path: Path, result: ActionResult) -> None:
    cache = DiskActionCache(str(tmp_path))
    cache.put(KEY, result)
    assert DiskActionCache(str(tmp_path)).get(KEY) == result


def test_an_entry_cut_anywhere_is_a_miss_and_removed(tmp_path: Path) -> None:
    cache = DiskActionCache(str(tmp_path))
    cache.put(KEY, RESULT)
    whole = Path(_path(tmp_path)).read_bytes()
    for length in range(len(whole)):
        Path(_path(tmp_path)).write_bytes(whole[:length])
        assert cache.get(KEY) is None
        assert not os.path.exists(_path(tmp_path))
    Path(_path(tmp_path)).write_bytes(whole)
    assert cache.get(KEY) == RESULT


def test_an_altered_entry_is_a_miss(tmp_path: Path) -> None:
    cache = DiskActionCache(str(tmp_path))
    cache.put(KEY, RESULT)
    whole = Path(_path(tmp_path)).read_bytes()
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 1
        Path(_path(tmp_path)).write_bytes(altered)
        assert cache.get(KEY) is None


def test_an_entry_under_another_key_is_a_miss(tmp_path: Path) -> None:
    cache = DiskActionCache(str(tmp_path))
    cache.put(KEY, RESULT)
    os.makedirs(os.path.dirname(_path(tmp_path, OTHER_KEY)), exist_ok=True)
    shutil.copy(_path(tmp_path), _path(tmp_path, OTHER_KEY))
    assert cache.get(OTHER_KEY) is None
    assert cache.get(KEY) == RESULT


def test_get_counts_as_use_and_peek_does_not(tmp_path: Path) -> None:
    cache = DiskActionCache(str(tmp_path))
    cache.put(KEY, RESULT)
    os.utime(_path(tmp_path), (1000, 1000))
    cache.peek(KEY)
    assert os.stat(_path(tmp_path)).st_mtime == 1000
    cache.get(KEY)
    assert os.stat(_path(tmp_path)).st_mtime > 1000


def test_a_full_disk_is_a_cache_error(small_disk: Path) -> None:
    cache = DiskActionCache(str(small_disk))
    cache.put(KEY, RESULT)
    (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096))
    with pytest.raises(CacheError, match="no space"):
        cache.put(OTHER_KEY, RESULT)
    assert os.listdir(f"{small_disk}/ac/tmp") == []
    assert cache.get(KEY) == RESULT
    assert cache.get(OTHER_KEY) is None


def test_a_read_only_cache_answers(freezable: Path, freeze: Callable[[Path], None]) -> None:
    cache = DiskActionCache(str(freezable))
    cache.put(KEY, RESULT)
    cache.put(OTHER_KEY, RESULT)
    Path(_path(freezable, OTHER_KEY)).write_bytes(b"damage")
    freeze(freezable)
    assert cache.get(KEY) == RESULT
    assert cache.get(OTHER_KEY) is None
    with pytest.raises(CacheError, match="read-only"):
        cache.put(OTHER_KEY, RESULT)
