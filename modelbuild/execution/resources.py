"""ResourcePool: what the machine has, and what running actions have taken of it."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass, replace

from modelbuild.actions.action import Action, Resources
from modelbuild.errors import EnvironmentFailure

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_NVIDIA = "/proc/driver/nvidia/gpus"


@dataclass(frozen=True, slots=True)
class MachineResources:
    """Totals: cpu in cores, ram, disk and gpu_ram in bytes, gpu in devices."""

    cpu: float
    ram: int
    disk: int
    gpu: int = 0
    gpu_ram: int = 0


def measure_machine(cache_dir: str) -> MachineResources:
    """What this process may use. disk: what is free where the cache lies."""
    folder = cache_dir
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or "/"
    gpus = os.listdir(_NVIDIA) if os.path.isdir(_NVIDIA) else []
    return MachineResources(
        cpu=float(len(os.sched_getaffinity(0))),
        ram=_memory(),
        disk=shutil.disk_usage(folder).free,
        gpu=len(gpus),
        gpu_ram=_gpu_memory() if gpus else 0,
    )


class ResourcePool:
    """Counts resources. Thread-safe, and never blocks: the scheduler decides what waits."""

    def __init__(self, total: MachineResources) -> None:
        self.total = total
        self._lock = threading.Lock()
        self._used = Resources(cpu=0.0, ram=0)
        self._holders = 0

    def shortfall(self, action: Action) -> EnvironmentFailure | None:
        """The error of an action that needs more than the whole machine has.

        More cores than there are is no error: the action runs alone, and slower.
        """
        for name in ("ram", "disk", "gpu", "gpu_ram"):
            needs, has = getattr(action.resources, name), getattr(self.total, name)
            if needs > has:
                count = str if name == "gpu" else _size
                return EnvironmentFailure(
                    f"`{action.owner}` needs {count(needs)} of {name}, this machine has {count(has)}",
                    notes=(f"action {action.mnemonic}; nothing was run",),
                    hint="free some space" if name == "disk" else "build it on a larger machine",
                )
        return None

    def try_acquire(self, needs: Resources) -> bool:
        """Take `needs` if they are free. An action is never refused while nothing else runs."""
        needs = self._clamped(needs)
        with self._lock:
            used = self._used
            fits = (
                used.cpu + needs.cpu <= self.total.cpu + 1e-9
                and used.ram + needs.ram <= self.total.ram
                and used.disk + needs.disk <= self.total.disk
                and used.gpu + needs.gpu <= self.total.gpu
                and used.gpu_ram + needs.gpu_ram <= self.total.gpu_ram
            )
            if not fits and self._holders:
                return False
            self._used = _add(used, needs, 1)
            self._holders += 1
            return True

    def release(self, needs: Resources) -> None:
        """Give back what `try_acquire` took."""
        with self._lock:
            self._used = _add(self._used, self._clamped(needs), -1)
            self._holders -= 1

    def _clamped(self, needs: Resources) -> Resources:
        return replace(needs, cpu=min(needs.cpu, self.total.cpu))


def _add(left: Resources, right: Resources, sign: int) -> Resources:
    return Resources(
        left.cpu + sign * right.cpu,
        left.ram + sign * right.ram,
        left.disk + sign * right.disk,
        left.gpu + sign * right.gpu,
        left.gpu_ram + sign * right.gpu_ram,
    )


def _memory() -> int:
    """The machine's memory, or the smaller limit of the control group this process lives in."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        total = int(stream.readline().split()[1]) * 1024
    for path in (*_own_cgroup(), *_CGROUP_LIMITS):
        try:
            with open(path, encoding="ascii") as stream:
                text = stream.read().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def _own_cgroup() -> list[str]:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return []
    paths = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            paths.append(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
        elif not controllers:
            paths.append(f"/sys/fs/cgroup{path}/memory.max")
    return paths


def _gpu_memory() -> int:
    """The largest device's memory, as nvidia-smi says; 0 if it cannot be asked."""
    import subprocess  # noqa: PLC0415 - only machines with a GPU pay for it

    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
        return max(int(line) for line in answer.split()) << 20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.1f} {unit}" if unit != "B" else f"{count} B"
