"""Snapshots: what a finished request rested on, so that the next one need not find it all out again.

A snapshot of a request is three files in `<cache>/snapshots/`, each replaced as a whole:

    <id>.facts.json    every path the answer rested on, with its stamp
    <id>.graph.json    the action graph; stands as long as the loading facts do
    <id>.results.json  the key and result of every action

A null build reads the first only. All three carry a generation, so that a mix of two builds' files is
never believed, and a checksum before their JSON, so that an altered one is not. Losing them costs time,
never an artifact.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelbuild.cache.storage_failure import storage_failure
from modelbuild.driver.request import BuildRequest
from modelbuild.driver.stamp import RACY, Stamp, listing, stamp

SNAPSHOT_SCHEMA = 3


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything an answer rested on.

    loading: files that were read, and paths whose absence mattered. directories: path -> stamp, listing.
    environment: interpreters, installed packages, tool sources. sources: workspace-relative path -> stamp.
    outputs: path below modelbuild-out -> stamp and index of the action that made it.
    requested: the encoded requested targets. skipped: label and reason of those that the platform cannot
    have. counts: packages, targets, actions.
    """

    graph_generation: str
    results_generation: str
    loading: dict[str, Stamp]
    directories: dict[str, tuple[Stamp, str]]
    environment: dict[str, Stamp]
    sources: dict[str, Stamp]
    outputs: dict[str, tuple[Stamp, int]]
    requested: Sequence[Any]
    skipped: Sequence[Sequence[str]]
    counts: tuple[int, int, int]


@dataclass(slots=True)
class Difference:
    """Which facts no longer hold. `loading`: BUILD files have to be evaluated again."""

    loading: bool = False
    environment: bool = False
    sources: set[str] = field(default_factory=set)
    outputs: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.loading or self.environment or self.sources or self.outputs)


def compare(facts: Facts, root: Path, output_root: Path, own: Collection[str]) -> Difference:
    """Stat every path of `facts`. own: see stamp.listing."""
    difference = Difference()
    for path, known in facts.loading.items():
        if stamp(path) != known:
            difference.loading = True
            return difference
    for path, (known, names) in facts.directories.items():
        if stamp(path) != known and (known == RACY or listing(path, own) != names):
            difference.loading = True
            return difference
    difference.environment = any(stamp(path) != known for path, known in facts.environment.items())
    prefix = f"{root}/"
    for path, known in facts.sources.items():
        if stamp(path if path[0] == "/" else prefix + path) != known:
            difference.sources.add(path)
    prefix = f"{output_root}/"
    for path, (known, action) in facts.outputs.items():
        if stamp(prefix + path) != known:
            difference.outputs.add(action)
    return difference


def new_generation() -> str:
    """A name that no other build has chosen."""
    return os.urandom(16).hex()


class SnapshotFiles:
    """The three files of one request."""

    def __init__(self, cache_dir: Path, request: BuildRequest, fingerprint: Sequence[str]) -> None:
        """fingerprint: versions of modelbuild and Python, and whatever else decides the meaning of files."""
        identity = [
            str(request.root),
            list(request.patterns),
            request.command == "test",
            request.working_package,
            request.salt,
            dataclasses.astuple(request.options),
            *fingerprint,
        ]
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        self._base = f"{cache_dir}/snapshots/{name}"

    def facts(self) -> Facts | None:
        """The facts, or None when there are none to be believed."""
        data = self._read("facts")
        if data is None:
            return None
        data.pop("schema")
        return Facts(**data)

    def graph(self, facts: Facts) -> Mapping[str, Any] | None:
        """The encoded graph of the same generation as `facts`."""
        data = self._read("graph")
        return data["graph"] if data and data["generation"] == facts.graph_generation else None

    def results(self, facts: Facts) -> list[list[Any]] | None:
        """Key and encoded result of every action, of the same generation as `facts`."""
        data = self._read("results")
        return data["results"] if data and data["generation"] == facts.results_generation else None

    def write(self, facts: Facts, results: Sequence[Sequence[Any]], graph: Mapping[str, Any] | None) -> None:
        """Replace the snapshot; `graph` None: the stored one stands. Facts come last.

        Raises CacheError when the disk is full; what was there before is then still good.
        """
        try:
            self._write_parts(facts, results, graph)
        except OSError as error:
            raise storage_failure(error, os.path.dirname(self._base)) from error

    def _write_parts(
        self, facts: Facts, results: Sequence[Sequence[Any]], graph: Mapping[str, Any] | None
    ) -> None:
        os.makedirs(os.path.dirname(self._base), exist_ok=True)
        if graph is not None:
            self._write("graph", {"generation": facts.graph_generation, "graph": graph})
        self._write("results", {"generation": facts.results_generation, "results": results})
        self._write("facts", {name: getattr(facts, name) for name in Facts.__slots__})

    def _read(self, part: str) -> dict[str, Any] | None:
        try:
            with open(f"{self._base}.{part}.json", "rb") as stream:
                checksum, text = stream.readline(), stream.read()
        except OSError:
            return None
        if checksum != _checksum(text):
            return None
        data: dict[str, Any] = json.loads(text)
        return data if data["schema"] == SNAPSHOT_SCHEMA else None

    def _write(self, part: str, data: Mapping[str, Any]) -> None:
        path = f"{self._base}.{part}.json"
        temporary = f"{path}.{new_generation()}"
        try:
            text = json.dumps({"schema": SNAPSHOT_SCHEMA, **data}, separators=(",", ":")).encode()
            with open(temporary, "wb") as stream:
                stream.write(_checksum(text))
                stream.write(text)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _checksum(text: bytes) -> bytes:
    """Against turned bits and writes that were cut short, not against malice: milliseconds for megabytes."""
    return b"%08x\n" % zlib.crc32(text)
