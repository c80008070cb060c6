"""Runners: where the programs of a platform run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Runner:
    """How a Python tool of another platform is run.

    kind: `local` (this machine is such a device), `qemu-user` (another CPU's Linux programs, emulated), `ssh`
    (a device that answers). cpu: as in `@platforms//cpu`. sysroot: for qemu-user the lock file of the Debian
    packages that make up the device's file system, Python included. address: for ssh, `user@host[:port]`;
    never part of a key.
    """

    kind: Literal["local", "qemu-user", "ssh"]
    cpu: str
    sysroot: Path | None = None
    address: str = ""


LOCAL = Runner("local", "")
"""This very machine."""
