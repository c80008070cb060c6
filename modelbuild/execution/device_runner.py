"""DeviceRunner: the one small interface behind which a Python tool runs on a device.

What a call needs is laid out in one directory first, so that every kind of runner takes it up as it is:

    <base>/root/   the current directory: `request.json`, and the inputs at their logical names
    <base>/tool/   the tool's files, and those of modelbuild.toolkit that it imports, and nothing else
    <base>/tmp/    HOME and TMPDIR
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import modelbuild.toolkit
from modelbuild.execution.executor import Progress
from modelbuild.execution.tool_sources import read_tool_sources
from modelbuild.execution.worker_pool import WorkerExit
from modelbuild.tool import PythonTool

FLAGS = ("-S", "-s", "-P", "-B", "-X", "faulthandler")
"""Of Python: no site-packages of the device, nothing beside the script, no .pyc left behind."""

_STAGED = "tool"
_ENTRY = "modelbuild/toolkit/request.py"


@dataclass(frozen=True, slots=True)
class DevicePackages:
    """What a tool imports. python: the version it is for, `3.11`. directory: empty when it is nothing.

    digest: of the lock, for who keeps the packages elsewhere.
    """

    python: str
    directory: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class DeviceCall:
    """One call of a tool, laid out. log: where stdout and stderr go. tool: its file, as it was staged.

    threads: how many the tool may use.
    """

    base: str
    log: str
    tool: str
    packages: DevicePackages
    threads: int = 1

    @property
    def root(self) -> str:
        """The current directory."""
        return f"{self.base}/root"

    @property
    def script(self) -> tuple[str, ...]:
        """What Python is told to run, relative to `base`."""
        return (f"{_STAGED}/{_ENTRY}", f"{_STAGED}/{self.tool}", "request.json")


class DeviceRunner(Protocol):
    """Runs tools on one device."""

    def run(
        self, call: DeviceCall, cancel: threading.Event, on_progress: Callable[[Progress], None]
    ) -> WorkerExit:
        """Run the call to its end; its outputs then lie in its root.

        Raises EnvironmentFailure when the device cannot be had.
        """

    def interact(self, call: DeviceCall) -> int:
        """Run the call for a person, on the terminal; the exit code. Raises EnvironmentFailure likewise."""


def stage_tool(tool: PythonTool, base: str) -> str:
    """Copy the files of `tool` to `<base>/tool`; the name of its file there.

    A copy has no .pyc beside it that this machine's Python wrote, and can be sent as it is.
    """
    source = os.path.abspath(tool.source)
    toolkit = os.path.dirname(os.path.abspath(modelbuild.toolkit.__file__))
    for name, path in read_tool_sources(source, toolkit).files.items():
        target = f"{base}/{_STAGED}/{name}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(path, target)
    return os.path.basename(source)
