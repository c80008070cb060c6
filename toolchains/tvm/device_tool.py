"""Runs a library that TVM made on a device for which there are wheels of TVM. Imports numpy and tvm_ffi.

TVM's Python package itself would bring in its compiler, which takes half a minute under emulation; what is
called here is its runtime library, through its foreign function interface.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np
import tvm_ffi
from device_model import DeviceModel, run_model

from modelbuild.toolkit.device_run import Array
from modelbuild.toolkit.request import Request, ToolError

_CPU = (1, 0)
"""DLPack's number of the CPU, and which one."""
_POOLED = 2
"""The virtual machine's allocator that keeps freed memory for the next call."""


def main(request: Request) -> None:
    """Inputs: binary, and probes or else arguments. Outputs: logits, timing; or classes on stdout."""
    os.environ["TVM_NUM_THREADS"] = str(request.threads)  # Read when the first call starts its threads.
    run_model(request, open_model(request.inputs["binary"]))


def open_model(library: Path) -> DeviceModel:
    """Load TVM's runtime and a library. Raises ToolError when the runtime is not there."""
    package = importlib.util.find_spec("tvm")
    if package is None or package.origin is None:
        raise ToolError("the package `apache-tvm` is not in the tool's environment")
    runtime = Path(package.origin).parent / "lib" / "libtvm_runtime.so"
    ctypes.CDLL(str(runtime), ctypes.RTLD_GLOBAL)
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "model.so")  # The loader goes by the suffix.
        link.symlink_to(library.absolute())
        machine = tvm_ffi.load_module(str(link))["vm_load_executable"]()
    machine["vm_initialization"](*_CPU, _POOLED)
    *shape, classes = (int(each) for each in np.from_dlpack(machine["signature"]()))
    call = machine["main"]

    def run(row: Array) -> Array:
        return np.array(np.from_dlpack(call(tvm_ffi.from_dlpack(row))))  # The machine uses its memory again.

    return DeviceModel(run, tuple(shape), classes, importlib.metadata.version("apache-tvm"))
