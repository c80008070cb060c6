"""Counting resources."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelbuild.actions.action import Action, Resources
from modelbuild.artifact import Artifact
from modelbuild.errors import EnvironmentFailure
from modelbuild.execution.resources import MachineResources, ResourcePool, measure_machine
from modelbuild.label import Label
from modelbuild.tool import WriteTool

MACHINE = MachineResources(cpu=4.0, ram=8 << 30, disk=100 << 30)


def action(**needs: Any) -> Action:
    made = Action(WriteTool(), {}, {}, {"out": Artifact("a", "file")}, owner=Label("", "pkg", "big"))
    return replace(made, mnemonic="Train", resources=Resources(**needs))


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        ({"ram": 9 << 30}, "needs 9.0 GiB of ram, this machine has 8.0 GiB"),
        ({"disk": 200 << 30}, "needs 200.0 GiB of disk, this machine has 100.0 GiB"),
        ({"gpu": 1}, "needs 1 of gpu, this machine has 0"),
        ({"gpu_ram": 1 << 30}, "needs 1.0 GiB of gpu_ram, this machine has 0 B"),
    ],
)
def test_a_shortfall_is_named(needs: Any, text: str) -> None:
    pool = ResourcePool(MACHINE)
    assert pool.shortfall(action()) is None
    error = pool.shortfall(action(**needs))
    assert isinstance(error, EnvironmentFailure)
    assert text in error.message
    assert "`//pkg:big`" in error.message


def test_more_cores_than_there_are_is_no_error() -> None:
    pool = ResourcePool(MACHINE)
    assert pool.shortfall(action(cpu=64)) is None
    assert pool.try_acquire(Resources(cpu=64))
    assert not pool.try_acquire(Resources(cpu=1))
    pool.release(Resources(cpu=64))
    assert pool.try_acquire(Resources(cpu=1))


@pytest.mark.parametrize("name", ["cpu", "ram", "disk"])
def test_what_is_taken_is_not_free(name: str) -> None:
    half = replace(
        Resources(cpu=0, ram=0), **{name: type(getattr(MACHINE, name))(getattr(MACHINE, name) * 0.6)}
    )
    pool = ResourcePool(MACHINE)
    assert pool.try_acquire(half)
    assert not pool.try_acquire(half)
    pool.release(half)
    assert pool.try_acquire(half)


def test_alone_an_action_always_runs() -> None:
    """An estimate that grew past the machine after preflight must not stop the build for ever."""
    pool = ResourcePool(MACHINE)
    assert pool.try_acquire(Resources(ram=80 << 30))
    assert not pool.try_acquire(Resources(ram=1))


def test_fractions_add_up() -> None:
    pool = ResourcePool(MACHINE)
    assert all(pool.try_acquire(Resources(cpu=0.1, ram=0)) for _ in range(40))
    assert not pool.try_acquire(Resources(cpu=0.1, ram=0))


def test_this_machine(tmp_path: Path) -> None:
    machine = measure_machine(str(tmp_path / "not" / "yet"))
    assert machine.cpu == len(os.sched_getaffinity(0))
    assert 64 << 20 < machine.ram <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.disk > 0
