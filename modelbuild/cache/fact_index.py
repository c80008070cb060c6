"""FactIndex: what is known of files, by their stat: the digest that need not be computed again.

A row is worth nothing unless it is intact, so each carries a checksum of itself and of its key: sqlite has
none, and one flipped bit in a recorded digest would be a wrong answer. Every checksum and every xxh3 of
this file is seeded with a number drawn when the index was made; they mean nothing elsewhere.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import struct
import threading
from dataclasses import dataclass, replace

from xxhash import xxh3_64_intdigest

from modelbuild.cache.database import Database, is_storable
from modelbuild.digest import Digest

Signature = tuple[int, int, int, int, int]
"""Size, mtime_ns, ctime_ns, inode and device: what changes whenever a file does."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, fact BLOB) WITHOUT ROWID;
"""
_PACKED = struct.Struct("<qqqQQq32s16s16s")
_CHECK = struct.Struct("<Q")
_SYNCED = bytes(16)
_LOOKUPS_BEFORE_LOADING = 256


def signature(stat: os.stat_result) -> Signature:
    """The signature of a file that was just statted."""
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)


def boot_id() -> bytes:
    """16 bytes that differ after every boot; random, so never equal, where the kernel does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return bytes.fromhex(stream.read().strip().replace("-", ""))
    except (OSError, ValueError):
        return secrets.token_bytes(16)


@dataclass(frozen=True, slots=True)
class Fact:
    """A file that had `signature` had this content.

    checked_ns: the wall clock before the content was read; 0 if the file changed meanwhile.
    xxh3: the seeded xxh3_128. boot: the boot in which this was learnt and not yet synced to disk; zeros
    once it is.
    """

    signature: Signature
    checked_ns: int
    digest: Digest
    xxh3: bytes
    boot: bytes = _SYNCED


class FactIndex:
    """Facts by key, in sqlite, read lazily and written in batches. Safe to use from several threads.

    Keys starting with `/` are paths of source files, others are blobs.
    """

    def __init__(self, path: str | None, *, notes: list[str] | None = None) -> None:
        """`path`: None keeps everything in memory."""
        self.database = Database(path, _SCHEMA, notes=notes)
        self._lock = threading.RLock()
        self._facts: dict[str, Fact | bytes | None] = {}
        self._pending: dict[str, Fact | None] = {}
        self._unsynced: dict[str, Fact] = {}
        self._loaded = {True: False, False: False}
        self._lookups = {True: 0, False: 0}
        self._boot = boot_id()
        self._seed: int | None = None

    @property
    def seed(self) -> int:
        """The seed of every xxh3 here."""
        if self._seed is None:
            with self._lock:
                self._seed = self._stored_seed()
        return self._seed

    def get(self, key: str) -> Fact | None:
        """What is known of `key`, if it was learnt in this boot or has been synced since."""
        try:
            fact = self._facts[key]
        except KeyError:
            fact = self._look_up(key)
        if type(fact) is bytes:
            fact = self._facts[key] = self._decode(key, fact)
        return fact  # type: ignore[return-value]

    def put(self, key: str, fact: Fact) -> None:
        """Remembers `fact`, and says that it may not survive a power cut until `sync_done`."""
        fact = Fact(fact.signature, fact.checked_ns, fact.digest, fact.xxh3, self._boot)
        with self._lock:
            self._facts[key] = fact
            self._pending[key] = fact
            self._unsynced[key] = fact

    def remove(self, key: str) -> None:
        """Forgets `key`."""
        with self._lock:
            self._facts[key] = None
            self._pending[key] = None
            self._unsynced.pop(key, None)

    def load(self, *, sources: bool) -> None:
        """Reads all facts of source files, or of blobs, at once: about 2 us each."""
        with self._lock:
            if self._loaded[sources]:
                return
            where = "key >= '/' AND key < '0'" if sources else "key >= '0'"
            known = self._facts
            for key, fact in self.database.read(f"SELECT key, fact FROM facts WHERE {where}"):  # noqa: S608
                known.setdefault(key, fact)
            self._loaded[sources] = True

    def flush(self) -> None:
        """Writes what is new, in one transaction. Dropped when the file is busy or cannot be written."""
        with self._lock:
            if not self._pending:
                return
            pending, self._pending = self._pending, {}
            self._write({key: fact for key, fact in pending.items() if is_storable(key)})

    def unsynced(self) -> dict[str, Fact]:
        """The facts that `sync_done` may mark once the file system has written them."""
        with self._lock:
            return dict(self._unsynced)

    def sync_done(self, facts: dict[str, Fact]) -> None:
        """Marks `facts`, as `unsynced` gave them before the file system was synced, and writes them."""
        with self._lock:
            for key, fact in facts.items():
                if self._unsynced.get(key) is fact:
                    del self._unsynced[key]
                    self._facts[key] = self._pending[key] = replace(fact, boot=_SYNCED)
            self.flush()

    def close(self) -> None:
        """Writes what is new and closes the file."""
        self.flush()
        self.database.close()

    def _look_up(self, key: str) -> Fact | bytes | None:
        sources = key.startswith("/")
        with self._lock:
            if not self._loaded[sources] and is_storable(key):
                self._lookups[sources] += 1
                if self._lookups[sources] > _LOOKUPS_BEFORE_LOADING:
                    self.load(sources=sources)
                else:
                    rows = self.database.read("SELECT fact FROM facts WHERE key = ?", (key,))
                    self._facts.setdefault(key, rows[0][0] if rows else None)
            return self._facts.setdefault(key, None)

    def _write(self, facts: dict[str, Fact | None]) -> None:
        gone = [(key,) for key, fact in facts.items() if fact is None]
        kept = [(key, self._encode(key, fact)) for key, fact in facts.items() if fact is not None]

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM facts WHERE key = ?", gone)
            connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", kept)

        self.database.write(change)

    def _encode(self, key: str, fact: Fact) -> bytes:
        size, mtime, ctime, inode, device = fact.signature
        packed = _PACKED.pack(
            size, mtime, ctime, inode, device, fact.checked_ns,
            bytes.fromhex(fact.digest.sha256), fact.xxh3, fact.boot,
        )  # fmt: skip
        return packed + _CHECK.pack(self._check(key, packed))

    def _decode(self, key: str, row: bytes) -> Fact | None:
        if len(row) != _PACKED.size + _CHECK.size:
            return None
        packed = row[: _PACKED.size]
        if _CHECK.unpack_from(row, _PACKED.size)[0] != self._check(key, packed):
            return None
        size, mtime, ctime, inode, device, checked, sha256, xxh3, boot = _PACKED.unpack(packed)
        if boot not in (_SYNCED, self._boot):
            return None
        return Fact((size, mtime, ctime, inode, device), checked, Digest(sha256.hex(), size), xxh3, boot)

    def _check(self, key: str, packed: bytes) -> int:
        return xxh3_64_intdigest(key.encode("utf-8", "surrogateescape") + packed, self.seed)

    def _stored_seed(self) -> int:
        fresh = secrets.randbits(64)
        insert = "INSERT OR IGNORE INTO meta VALUES ('seed', ?)"
        for _ in range(2):
            rows = self.database.read("SELECT value FROM meta WHERE name = 'seed'")
            try:
                return int(rows[0][0], 16)
            except (IndexError, ValueError, TypeError):
                # Absent, or unreadable: then no row can be checked either, and the first writer's stands.
                self.database.write_rows(insert, [(f"{fresh:016x}",)])
        return fresh
