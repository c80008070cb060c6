"""Snapshots come back as they were written, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.driver.request import BuildRequest
from modelbuild.driver.snapshot import Facts, SnapshotFiles

FACTS = Facts("one", "two", {"/a": [1, 2, 3, 4, 5]}, {}, {}, {"in.txt": []}, {}, [], [], (1, 2, 3))


@pytest.fixture
def files(tmp_path: Path) -> SnapshotFiles:
    made = SnapshotFiles(tmp_path, BuildRequest(tmp_path, ("//...",), tmp_path), ["1.0"])
    made.write(FACTS, [["key", "result"]], {"actions": []})
    return made


def test_what_was_written_is_read(files: SnapshotFiles) -> None:
    facts = files.facts()
    assert facts is not None
    assert (facts.loading, facts.sources, tuple(facts.counts)) == (FACTS.loading, FACTS.sources, (1, 2, 3))
    assert files.graph(facts) == {"actions": []}
    assert files.results(facts) == [["key", "result"]]


@pytest.mark.parametrize("damage", ["empty", "cut", "turned", "[]", '{"schema": 2}', "\x00garbage"])
def test_what_was_altered_is_not_believed(files: SnapshotFiles, damage: str, tmp_path: Path) -> None:
    whole = files.facts()
    assert whole is not None
    paths = sorted((tmp_path / "snapshots").iterdir())
    assert len(paths) == 3
    for path in paths:
        data = bytearray(path.read_bytes())
        data[-7] ^= 1
        changed = {"empty": b"", "cut": bytes(data[:-2]), "turned": bytes(data)}
        path.write_bytes(changed.get(damage, damage.encode()))
    assert files.facts() is None
    assert files.graph(whole) is None
    assert files.results(whole) is None
