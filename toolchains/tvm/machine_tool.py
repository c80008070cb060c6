"""Runs a model with the runtime that lies beside it, through the functions of runtime/machine.h.

For devices without wheels of TVM. Imports numpy, which is the device's own.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
from device_model import DeviceModel, run_model

from modelbuild.toolkit.device_run import Array
from modelbuild.toolkit.request import Request, ToolError

_ROOM = 8
"""Numbers of a signature."""


def main(request: Request) -> None:
    """Inputs: binary, and probes or else arguments. Outputs: logits, timing; or classes on stdout."""
    os.environ["TVM_NUM_THREADS"] = str(request.threads)  # Read when the first call starts its threads.
    run_model(request, open_model(request.inputs["binary"]))


def open_model(tree: Path) -> DeviceModel:
    """Open the runtime and the model of a tree. Raises ToolError with what the runtime says."""
    runtime = ctypes.CDLL(str(tree.absolute() / "libtvm_runtime.so"), ctypes.RTLD_GLOBAL)
    runtime.modelbuild_error.restype = ctypes.c_char_p
    runtime.modelbuild_version.restype = ctypes.c_char_p
    runtime.modelbuild_open.restype = ctypes.c_void_p
    runtime.modelbuild_run.restype = ctypes.c_int64
    numbers, rank = (ctypes.c_int64 * _ROOM)(), ctypes.c_int32()
    path = str(tree.absolute() / "model.so").encode()
    opened = runtime.modelbuild_open(path, numbers, ctypes.byref(rank))
    if opened is None:
        raise ToolError(f"TVM cannot open the model: {runtime.modelbuild_error().decode()}")
    shape, classes = tuple(numbers[: rank.value]), int(numbers[rank.value])
    answer_shape = (*shape, classes) if len(shape) == 2 else (shape[0], classes)

    def run(row: Array) -> Array:
        logits = np.empty(answer_shape, np.float32)
        arguments = ctypes.c_void_p(opened), ctypes.c_void_p(row.ctypes.data)
        room = ctypes.c_int64(logits.size)
        count = runtime.modelbuild_run(*arguments, ctypes.c_void_p(logits.ctypes.data), room)
        if count != logits.size:
            raise ToolError(f"TVM cannot run the model: {runtime.modelbuild_error().decode()}")
        return logits

    return DeviceModel(run, shape, classes, runtime.modelbuild_version().decode())
