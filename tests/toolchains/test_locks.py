"""Every lock of this repository: whole, of one torch, without what only a GPU needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelbuild.execution.lock_file import LockFile, read_lock
from modelbuild.tool import Lock
from tests.toolchains.workshop import ROOT

FOLDERS = ("toolchains", "modelbuild/rules", "examples")
PATHS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.lock"))
GPU = re.compile(r"(nvidia|cuda|tensorrt|triton)(-|$)")


def lock(path: Path) -> LockFile:
    return read_lock(Lock(path), "linux-x86_64")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_pins_each_package_once_and_no_build_of_it(path: Path) -> None:
    names = [pin.name for pin in lock(path).pins]
    assert len(names) == len(set(names))
    assert [pin.version for pin in lock(path).pins if "+" in pin.version] == []


@pytest.mark.parametrize(
    "path",
    [path for path in PATHS if path.parent.name != "tensorrt"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_only_a_gpu_needs_is_held_back(path: Path) -> None:
    """PyPI's torch for Linux requires CUDA's libraries, gigabytes of them; the build for the CPU does not."""
    found = lock(path)
    held_back = {pin.name for pin in found.held_back}
    assert {pin.name for pin in found.pins if GPU.match(pin.name)} == held_back
    if "torch" in found.detail:
        assert found.detail["torch"] == "2.13.0"
        (one,) = {
            frozenset((pin.name, pin.version) for pin in lock(each).held_back)
            for each in PATHS
            if "torch" in lock(each).detail
        }
        assert len(one) == len(held_back) > 10
    else:
        assert not held_back
