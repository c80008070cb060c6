"""FingerprintIndex: the digest of a source file, computed only when the file may have changed."""

from __future__ import annotations

import os

from modelbuild.cache import hashing
from modelbuild.cache.fact_index import Fact, FactIndex, signature
from modelbuild.digest import Digest

_RACY_NS = 100_000_000
_RACY_COARSE_NS = 2_500_000_000
"""A file changed this shortly before it was read may change again under the same stat: the clock of a file
system ticks every 1 to 10 ms, or every two seconds where it keeps no nanoseconds."""


class FingerprintIndex:
    """Digests of source files. Safe to use from several threads.

    1. the stat is the recorded one, and the file was not "racily clean" (see git) when it was read: the
       recorded SHA-256 stands, for the price of a stat;
    2. the stat differs, but size and seeded xxh3_128 do not: it stands too (a checkout, a `touch`);
    3. else the file is hashed anew.
    """

    def __init__(self, facts: FactIndex) -> None:
        self._facts = facts

    def digest(self, path: str, stat: os.stat_result | None = None) -> Digest:
        """The digest of the regular file at absolute `path`; symlinks are followed.

        `stat`: of the same file, if the caller has just taken one. Raises OSError as `open` does.
        """
        now = signature(os.stat(path) if stat is None else stat)
        fact = self._facts.get(path)
        if fact is not None and fact.signature == now and not _racy(fact):
            return fact.digest
        return self._read(path, fact).digest

    def load_all(self) -> None:
        """Reads every recorded fact at once; worth it before thousands of files."""
        self._facts.load(sources=True)

    def flush(self) -> None:
        """Writes what was learnt."""
        self._facts.flush()

    def _read(self, path: str, known: Fact | None) -> Fact:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fact = hashing.unchanged_content(fd, known, self._facts.seed) if known is not None else None
            if fact is None:
                fact = hashing.observe(fd, self._facts.seed)
        finally:
            os.close(fd)
        self._facts.put(path, fact)
        return fact


def _racy(fact: Fact) -> bool:
    _, mtime_ns, ctime_ns, _, _ = fact.signature
    coarse = not (mtime_ns % 1_000_000_000 or ctime_ns % 1_000_000_000)
    window = _RACY_COARSE_NS if coarse else _RACY_NS
    return max(mtime_ns, ctime_ns) + window >= fact.checked_ns
