"""Locks between threads, processes and gc."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.cache.locks import KeyLocks, UseLock
from modelbuild.digest import digest_bytes
from modelbuild.errors import CacheError

KEYS = [digest_bytes(b"%d" % number).sha256 for number in range(50)]

_HOLD = """
import sys, time
from modelbuild.cache.locks import KeyLocks, UseLock
path, key = sys.argv[1:]
assert KeyLocks(path + "/key.locks").try_acquire(key)
with UseLock(path + "/use.lock").shared():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def locks(tmp_path: Path) -> KeyLocks:
    return KeyLocks(str(tmp_path / "key.locks"))


def _hold(directory: Path, key: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(directory), key], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


def test_a_key_is_held_once_within_a_process(locks: KeyLocks) -> None:
    assert locks.try_acquire(KEYS[0])
    assert not locks.try_acquire(KEYS[0])
    assert locks.try_acquire(KEYS[1])
    locks.release(KEYS[0])
    assert locks.try_acquire(KEYS[0])
    for key in KEYS[:2]:
        locks.release(key)


def test_releasing_what_is_not_held_is_an_error(locks: KeyLocks) -> None:
    with pytest.raises(KeyError):
        locks.release(KEYS[0])


def test_two_objects_of_one_process_share_the_lock(tmp_path: Path) -> None:
    first, second = KeyLocks(str(tmp_path / "locks")), KeyLocks(str(tmp_path / "." / "locks"))
    assert first.try_acquire(KEYS[0])
    assert not second.try_acquire(KEYS[0])
    del second
    process = multiprocessing.get_context("spawn").Process(
        target=_expect, args=(str(tmp_path / "locks"), KEYS[0], False)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    first.release(KEYS[0])


def _expect(path: str, key: str, free: bool) -> None:
    locks = KeyLocks(path)
    assert locks.try_acquire(key) is free
    assert locks.try_acquire(digest_bytes(b"something else").sha256)


def test_a_forked_child_does_not_have_its_parents_locks(tmp_path: Path, locks: KeyLocks) -> None:
    assert locks.try_acquire(KEYS[0])
    child = os.fork()
    if child == 0:
        os._exit(0 if not locks.try_acquire(KEYS[0]) and locks.try_acquire(KEYS[1]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    process = multiprocessing.get_context("spawn").Process(
        target=_expect, args=(str(tmp_path / "key.locks"), KEYS[0], False)
    )
    process.start()
    process.join()
    assert process.exitcode == 0, "the child's end does not free the parent's lock"
    locks.release(KEYS[0])


def test_a_killed_process_gives_its_locks_back(tmp_path: Path, locks: KeyLocks) -> None:
    holder = _hold(tmp_path, KEYS[0])
    use = UseLock(str(tmp_path / "use.lock"))
    assert not locks.try_acquire(KEYS[0])
    assert locks.try_acquire(KEYS[1])
    with pytest.raises(CacheError, match="in use by a build"), use.exclusive(timeout_s=0.0):
        pytest.fail("gc ran beside a build")
    with use.shared():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert locks.try_acquire(KEYS[0])
    with use.exclusive(timeout_s=0.0):
        pass
    locks.release(KEYS[0])
    locks.release(KEYS[1])


def test_threads_exclude_each_other(locks: KeyLocks) -> None:
    inside = dict.fromkeys(KEYS[:3], 0)
    most = []

    def work() -> None:
        for number in range(300):
            key = KEYS[number % 3]
            if locks.try_acquire(key):
                inside[key] += 1
                most.append(inside[key])
                inside[key] -= 1
                locks.release(key)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_the_lock_file_stays_empty(tmp_path: Path, locks: KeyLocks) -> None:
    for key in KEYS:
        assert locks.try_acquire(key)
    for key in KEYS:
        locks.release(key)
    assert os.path.getsize(tmp_path / "key.locks") == 0


def test_builds_wait_while_gc_runs(tmp_path: Path) -> None:
    use = UseLock(str(tmp_path / "use.lock"))
    with use.exclusive(), pytest.raises(CacheError, match="being cleaned"), use.shared(timeout_s=0.0):
        pytest.fail("a build ran beside gc")
    with use.shared(), use.shared():
        pass


def test_a_read_only_cache_needs_no_locks(freezable: Path, freeze: Callable[[Path], None]) -> None:
    freeze(freezable)
    locks = KeyLocks(str(freezable / "key.locks"))
    assert locks.try_acquire(KEYS[0])
    assert not locks.try_acquire(KEYS[0])
    locks.release(KEYS[0])
    with UseLock(str(freezable / "use.lock")).shared(timeout_s=0.0):
        pass
