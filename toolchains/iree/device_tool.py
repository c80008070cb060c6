"""Runs a `.vmfb` file with IREE's runtime: logits of probes, or the answer to a row of numbers."""

from __future__ import annotations

import mmap
from pathlib import Path

import iree.runtime
import iree.runtime.version
import numpy as np

from modelbuild.toolkit.device_answer import answer
from modelbuild.toolkit.device_run import Array, run_probes
from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.request import Request

_DRIVER = "local-sync"
"""One thread and no task system: what every device with one core has."""


class VmModel:
    """One loaded module."""

    def __init__(self, path: Path) -> None:
        """Raises ToolError when the runtime refuses the file."""
        config = iree.runtime.Config(_DRIVER)
        context = iree.runtime.SystemContext(config=config)
        with path.open("rb") as stream:
            # VmModule.mmap would open the file for writing, which an input is not.
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        with foreign_errors("IREE's runtime refuses the file", RuntimeError, ValueError):
            context.add_vm_module(iree.runtime.VmModule.wrap_buffer(config.vm_instance, content))
        self._main = context.modules.module["main"]

    @property
    def row(self) -> tuple[tuple[int, ...], type[np.int64 | np.float32]]:
        """Shape and type of what it takes, (1, tokens) or (1, channels, height, width)."""
        *sizes, kind = self._main.vm_function.reflection["input"].split("x")
        return tuple(int(size) for size in sizes), np.int64 if kind == "i64" else np.float32

    def run(self, row: Array) -> Array:
        """The logits of one row."""
        result = self._main(row)
        # A copy, while `result` lives: to_host gives the runtime's memory, which the next call overwrites.
        return np.array(result.to_host())


def main(request: Request) -> None:
    """Inputs: binary, and probes unless numbers are given. Outputs: logits, timing; or text on stdout."""
    model = VmModel(request.inputs["binary"])
    if "probes" in request.inputs:
        run_probes(request, model.run, runtime="iree", version=iree.runtime.version.VERSION)
    else:
        answer(request.arguments, model.run, *model.row)
