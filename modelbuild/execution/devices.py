"""Devices: the runner of a platform, ready to run tools."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from modelbuild.errors import EnvironmentFailure
from modelbuild.execution.device_runner import DevicePackages, DeviceRunner
from modelbuild.execution.qemu_runner import QemuRunner
from modelbuild.execution.ssh_runner import SshRunner
from modelbuild.execution.sysroot import find_emulator
from modelbuild.execution.sysroot_lock import read_sysroot_lock
from modelbuild.execution.tool_environment import ToolEnvironments
from modelbuild.execution.worker_pool import WorkerPool
from modelbuild.runner import Runner
from modelbuild.tool import Lock


class Devices:
    """Makes runners; what they need is made first, and kept in the cache."""

    def __init__(
        self, environments: ToolEnvironments, pool: WorkerPool, ssh_options: tuple[str, ...] = ()
    ) -> None:
        """ssh_options: further `-o` options of ssh, for tests."""
        self._environments = environments
        self._pool = pool
        self._ssh_options = ssh_options
        self._lock = threading.Lock()
        self._boards: dict[str, threading.Lock] = {}

    def packages(self, lock: Lock | None, cancel: threading.Event) -> DevicePackages:
        """What a tool with this lock imports. Raises as `get`."""
        if lock is None:
            return DevicePackages(f"{sys.version_info.major}.{sys.version_info.minor}")
        file = self._environments.read(lock)
        made = self._environments.acquire(lock, cancel)
        return DevicePackages(file.python_version, made.packages, file.digest)

    def get(
        self, runner: Runner, cancel: threading.Event, waiting: Callable[[str, int], None] = lambda *_: None
    ) -> DeviceRunner:
        """The device behind `runner`. waiting: told what has to be made first, and of how many packages.

        Raises EnvironmentFailure, CacheError, AnalysisError for a bad lock, and Interrupted.
        """
        if runner.kind == "qemu-user" and runner.sysroot is not None:
            lock = read_sysroot_lock(runner.sysroot)
            find_emulator(lock)  # Before its file system is fetched.
            if not self._environments.start_sysroot(lock).done():
                waiting(lock.name, len(lock.packages))
            return QemuRunner(self._environments.acquire_sysroot(lock, cancel), self._pool)
        if runner.kind == "ssh":
            with self._lock:
                board = self._boards.setdefault(runner.address, threading.Lock())
            return SshRunner(runner.address, runner.cpu, self._ssh_options, board)
        raise EnvironmentFailure(f"no device of the kind `{runner.kind}` can be reached from this machine")
