"""Sysroot: an emulated device's file system, and how a program is called in it."""

from __future__ import annotations

import compileall
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelbuild.errors import EnvironmentFailure
from modelbuild.execution.debian import DebianUnpacker
from modelbuild.execution.host_program import find_program
from modelbuild.execution.sysroot_lock import SysrootLock


@dataclass(frozen=True, slots=True)
class Sysroot:
    """root: absolute path of the directory that a device has at `/`."""

    lock: SysrootLock
    root: str

    @property
    def packages(self) -> str:
        """Where Debian's own Python packages lie, such as numpy for a CPU that has no wheels."""
        return f"{self.root}/usr/lib/python3/dist-packages"

    def python(self) -> list[str]:
        """The command that calls its Python. Raises EnvironmentFailure when there is no emulator."""
        python = f"{self.root}/usr/bin/python{self.lock.python}"
        return [find_emulator(self.lock), "-cpu", self.lock.cpu, "-L", self.root, python]


def find_emulator(lock: SysrootLock) -> str:
    """The absolute path of the emulator that a lock names. Raises EnvironmentFailure."""
    path = find_program(lock.emulator)
    if path is None:
        raise EnvironmentFailure(
            f"`{lock.emulator}`, which runs the programs of `{lock.name}`, is not on this machine",
            hint="apt-get install --no-install-recommends qemu-user-static",
        )
    return path


@dataclass(frozen=True)
class SysrootRecipe:
    """A Recipe of the environment keeper: Debian packages, unpacked."""

    lock: SysrootLock

    @property
    def digest(self) -> str:
        """Of what the lock says."""
        return self.lock.digest

    @property
    def name(self) -> str:
        """`runners/aarch64.sysroot`."""
        return self.lock.name

    @property
    def path(self) -> str:
        """The lock file."""
        return str(self.lock.path)

    @property
    def packages(self) -> Mapping[str, str]:
        """Name -> pinned version, or nothing."""
        return self.lock.versions

    def make(self, directory: str, lock_descriptor: int, cancel: threading.Event) -> Sequence[str]:
        """See Recipe."""
        root = f"{directory}/root"
        os.mkdir(root)
        versions = DebianUnpacker(cancel).unpack(self.lock, root, lock_descriptor)
        with open(f"{directory}/versions", "w", encoding="utf-8") as stream:
            stream.writelines(f"{name}={version}\n" for name, version in sorted(versions.items()))
        if self.lock.python == f"{sys.version_info.major}.{sys.version_info.minor}":
            # To compile its library anew in each run would cost seconds under emulation.
            compileall.compile_dir(f"{root}/usr/lib", quiet=2, workers=1)
        return ()

    def is_usable(self, directory: str) -> bool:
        """It needs nothing but itself."""
        return True

    def open(self, directory: str) -> Sysroot:
        """The file system."""
        return Sysroot(self.lock, f"{directory}/root")
