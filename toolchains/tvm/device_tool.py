"""Runs a library that TVM made, in TVM's virtual machine, on the device. Imports numpy and tvm_ffi.

TVM's Python package itself would bring in its compiler, which takes half a minute under emulation; what is
called here is its runtime library, through its foreign function interface.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from modelbuild.toolkit.device_run import Array, run_probes
from modelbuild.toolkit.request import Request, ToolError

_CPU = (1, 0)
"""DLPack's number of the CPU, and which one."""
_POOLED = 2
"""The virtual machine's allocator that keeps freed memory for the next call."""


@dataclass(frozen=True)
class TvmModel:
    """A loaded library. shape: of the row that it takes. classes: of a row of its logits."""

    main: Callable[[Any], Any]
    shape: tuple[int, ...]
    classes: int

    def __call__(self, row: Array) -> Array:
        """int64 or float32 of `shape` -> float32 logits. Raises ToolError for a row that does not fit."""
        if row.shape != self.shape:
            raise ToolError(
                f"the library takes rows of shape {self.shape}, not {row.shape}",
                "make the binary with the `sequence_length` that the probes have",
            )
        if row.ndim == 2 and not 0 <= row.min() <= row.max() < self.classes:
            raise ToolError(f"a token is not one of the {self.classes} that the model knows")
        dtype = np.int64 if row.ndim == 2 else np.float32
        found = self.main(tvm_ffi.from_dlpack(np.ascontiguousarray(row, dtype)))
        return np.array(np.from_dlpack(found))  # A copy: the machine uses its memory again.


def load_model(library: Path) -> TvmModel:
    """Load TVM's runtime and a library. Raises ToolError when the runtime is not there."""
    package = importlib.util.find_spec("tvm")
    if package is None or package.origin is None:
        raise ToolError("the package `apache-tvm` is not in the tool's environment")
    runtime = Path(package.origin).parent / "lib" / "libtvm_runtime.so"
    ctypes.CDLL(str(runtime), ctypes.RTLD_GLOBAL)
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / "model.so"  # The loader goes by the suffix; an input of an action has none.
        named.symlink_to(library.resolve())
        machine = tvm_ffi.load_module(str(named))["vm_load_executable"]()
    machine["vm_initialization"](*_CPU, _POOLED)
    *shape, classes = (int(each) for each in np.from_dlpack(machine["signature"]()))
    return TvmModel(machine["main"], tuple(shape), classes)


def main(request: Request) -> None:
    """Inputs: binary, probes. Outputs: logits, timing."""
    os.environ["TVM_NUM_THREADS"] = str(request.threads)  # Read when the first call starts its threads.
    model = load_model(request.inputs["binary"])
    if "probes" not in request.inputs:
        raise ToolError("this binary takes numbers and gives logits: there is nothing to run it on")
    version = f"{importlib.metadata.version('apache-tvm')}"
    run_probes(request, model, runtime="tvm", version=version)
