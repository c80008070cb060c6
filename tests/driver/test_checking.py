"""What `--check` makes of arrays and of outputs that no two runs make alike."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from modelbuild.actions.action import Action
from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.artifact import Artifact
from modelbuild.cache.disk import DiskBlobStore
from modelbuild.driver.checking import compare_results
from modelbuild.errors import ActionFailed
from modelbuild.tool import ShellTool

ACTION = Action(
    ShellTool(),
    {"command": "x"},
    {},
    {"out/logits": Artifact("p/logits.npy", "file"), "out/timing": Artifact("p/timing.json", "file")},
    determinism="numeric",
    volatile=("out/timing",),
)


def result(blobs: DiskBlobStore, values: list[float], timing: str) -> ActionResult:
    stream = io.BytesIO()
    np.save(stream, np.array(values, dtype=np.float32))
    contents = {"out/logits": stream.getvalue(), "out/timing": timing.encode()}
    return ActionResult({n: OutputDigest("file", blobs.put_bytes(data)) for n, data in contents.items()})


@pytest.fixture
def blobs(tmp_path: Path) -> DiskBlobStore:
    return DiskBlobStore(str(tmp_path))


def test_arrays_may_round_otherwise_and_times_may_differ(blobs: DiskBlobStore) -> None:
    compare_results(blobs, ACTION, result(blobs, [1.0, 2.0], "3"), result(blobs, [1.0, 2.000001], "4"))


@pytest.mark.parametrize("values", [[1.0, 2.5], [1.0], [1.0, float("nan")]])
def test_other_arrays_are_told(blobs: DiskBlobStore, values: list[float]) -> None:
    with pytest.raises(ActionFailed) as caught:
        compare_results(blobs, ACTION, result(blobs, [1.0, 2.0], "3"), result(blobs, values, "3"))
    assert any("p/logits.npy" in note for note in caught.value.notes)


def test_without_saying_so_times_may_not_differ(blobs: DiskBlobStore) -> None:
    strict = dataclasses.replace(ACTION, volatile=())
    with pytest.raises(ActionFailed):
        compare_results(blobs, strict, result(blobs, [1.0], "3"), result(blobs, [1.0], "4"))
