"""Reading a file once for both of its hashes: SHA-256, its identity, and xxh3, its fast check."""

from __future__ import annotations

import hashlib
import os
import time

from xxhash import xxh3_128, xxh3_128_digest

from modelbuild.cache.fact_index import Fact, signature
from modelbuild.digest import Digest

CHUNK = 1 << 20
_ATTEMPTS = 3


def observe(fd: int, seed: int) -> Fact:
    """What an open file holds, read from its start.

    A file that changes while it is read is read again, three times at most; its fact then says that it was
    never checked (`checked_ns` 0).
    """
    for _ in range(_ATTEMPTS):
        checked_ns = time.time_ns()
        before = signature(os.fstat(fd))
        digest, xxh3 = hash_open_file(fd, before[0], seed)
        after = signature(os.fstat(fd))
        if before == after and digest.size == after[0]:
            return Fact(after, checked_ns, digest, xxh3)
        os.lseek(fd, 0, os.SEEK_SET)
    return Fact(after, 0, digest, xxh3)


def hash_open_file(fd: int, size: int, seed: int) -> tuple[Digest, bytes]:
    """SHA-256 with size, and seeded xxh3_128, of the rest of an open file of about `size` bytes."""
    if size < CHUNK:
        data = os.read(fd, size + 1)
        if len(data) == size:
            return Digest(hashlib.sha256(data).hexdigest(), size), xxh3_128_digest(data, seed)
        os.lseek(fd, -len(data), os.SEEK_CUR)
    sha256 = hashlib.sha256()
    xxh3 = xxh3_128(seed=seed)
    total = 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := os.readv(fd, [buffer]):
        sha256.update(view[:count])
        xxh3.update(view[:count])
        total += count
    return Digest(sha256.hexdigest(), total), xxh3.digest()


def xxh3_of_open_file(fd: int, size: int, seed: int) -> tuple[int, bytes]:
    """How many bytes the rest of an open file of about `size` bytes is, and its seeded xxh3_128."""
    if size < CHUNK:
        data = os.read(fd, size + 1)
        if len(data) == size:
            return size, xxh3_128_digest(data, seed)
        os.lseek(fd, -len(data), os.SEEK_CUR)
    xxh3 = xxh3_128(seed=seed)
    total = 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while count := os.readv(fd, [buffer]):
        xxh3.update(view[:count])
        total += count
    return total, xxh3.digest()


def unchanged_content(fd: int, known: Fact, seed: int) -> Fact | None:
    """A fresh fact with the digest of `known`, if size and xxh3 are still those; else None.

    Leaves the file at its start.
    """
    checked_ns = time.time_ns()
    before = signature(os.fstat(fd))
    if before[0] != known.digest.size:
        return None
    size, xxh3 = xxh3_of_open_file(fd, before[0], seed)
    os.lseek(fd, 0, os.SEEK_SET)
    if size != known.digest.size or xxh3 != known.xxh3 or signature(os.fstat(fd)) != before:
        return None
    return Fact(before, checked_ns, known.digest, xxh3)
