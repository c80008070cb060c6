"""QemuRunner: programs of another CPU's Linux, on this machine, by translating their instructions.

QEMU's user mode translates system calls, too, so that a device's Python opens this machine's files. What its
sysroot has comes from there: libraries, and what the kernel says of the processor.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable

from modelbuild.execution.device_runner import FLAGS, DeviceCall
from modelbuild.execution.executor import Progress
from modelbuild.execution.sysroot import Sysroot
from modelbuild.execution.worker_pool import SHELL, WorkerExit, WorkerPool, worker_environment


class QemuRunner:
    """A DeviceRunner. Calls run as shell commands do: no network, killed with all that they started."""

    def __init__(self, sysroot: Sysroot, pool: WorkerPool) -> None:
        self._sysroot = sysroot
        self._pool = pool

    def run(
        self, call: DeviceCall, cancel: threading.Event, on_progress: Callable[[Progress], None]
    ) -> WorkerExit:
        """See DeviceRunner."""
        request = {
            "cwd": call.root,
            "directory": call.base,
            "log": call.log,
            "environment": self._environment(call),
            "argv": self._command(call),
            "reports": True,
        }
        return self._pool.run(SHELL, request, cancel, on_progress)

    def interact(self, call: DeviceCall) -> int:
        """See DeviceRunner. It runs where the person is, so that they can name files."""
        command = self._command(call, call.root)
        return subprocess.run(command, env=self._environment(call), check=False).returncode

    def _command(self, call: DeviceCall, root: str = "") -> list[str]:
        """root: where `request.json` lies, if that is not the current directory."""
        entry, tool, request = call.script
        script = (f"{call.base}/{entry}", f"{call.base}/{tool}", os.path.join(root, request))
        return [*self._sysroot.python(), *FLAGS, *script]

    def _environment(self, call: DeviceCall) -> dict[str, str]:
        home = f"{call.base}/tmp"  # noqa: S108 - not the shared /tmp
        paths = ":".join(path for path in (call.packages.directory, self._sysroot.packages) if path)
        return {**worker_environment(call.threads), "HOME": home, "TMPDIR": home, "PYTHONPATH": paths}
