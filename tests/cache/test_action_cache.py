"""The contract of every ActionCache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.cache.action_cache import ActionCache
from modelbuild.digest import digest_bytes

KEY = digest_bytes(b"key").sha256
RESULT = ActionResult({"out/x": OutputDigest("file", digest_bytes(b"output"))}, None, 1.5, 100)
OTHER = ActionResult({"out/x": OutputDigest("file", digest_bytes(b"output"), executable=True)})


def test_unknown_keys_are_misses(action_cache: ActionCache) -> None:
    assert action_cache.get(KEY) is None


def test_what_is_put_is_found(action_cache: ActionCache) -> None:
    action_cache.put(KEY, RESULT)
    assert action_cache.get(KEY) == RESULT
    assert action_cache.get(digest_bytes(b"other").sha256) is None


def test_a_removed_entry_is_a_miss(action_cache: ActionCache) -> None:
    action_cache.put(KEY, RESULT)
    action_cache.remove(KEY)
    action_cache.remove(KEY)
    assert action_cache.get(KEY) is None


def test_threads_see_whole_entries(action_cache: ActionCache) -> None:
    def put_and_get(number: int) -> ActionResult | None:
        action_cache.put(KEY, RESULT if number % 2 else OTHER)
        return action_cache.get(KEY)

    with ThreadPoolExecutor(8) as pool:
        assert set(map(str, pool.map(put_and_get, range(200)))) <= {str(RESULT), str(OTHER)}
