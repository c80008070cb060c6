"""The lock of what runs on a device: its wheels, wherever they are unpacked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelbuild.platform import PlatformInfo
from modelbuild.tool import Lock

DEVICE_PYTHON = "3.11"
"""Of devices that are not this machine: Debian 12 has it."""


def device_lock(path: Path, platform: PlatformInfo, wheels: Mapping[str, str]) -> Lock | None:
    """The lock at `path` for Python on `platform`; None where there are no wheels, or no Linux.

    wheels: CPU -> the platform of its wheels as uv names it, `aarch64-manylinux_2_28`. Where the platform is
    the machine that builds, they are those of its own Python.
    """
    if platform.os != "linux" or platform.cpu not in wheels:
        return None
    if platform.runner is not None and platform.runner.kind == "local":
        return Lock(path)
    return Lock(path, wheels[platform.cpu], DEVICE_PYTHON)
