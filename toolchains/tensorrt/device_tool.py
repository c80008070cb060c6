"""Runs a TensorRT engine on the GPU of this machine. Needs numpy, tensorrt and cuda-bindings."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorrt
from cuda.bindings import runtime
from cuda_device import check

from modelbuild.toolkit.device_run import Array, run_probes
from modelbuild.toolkit.request import Request, ToolError


def main(request: Request) -> None:
    """Inputs: binary, and probes or else arguments. Outputs: logits, timing; or classes on stdout."""
    session = Session(request.inputs["binary"])
    if "probes" in request.inputs:
        run_probes(request, session.call, runtime="tensorrt", version=tensorrt.__version__)
        return
    if len(request.arguments) != 1:
        raise ToolError("there is nothing to run", "name a `.npy` file with rows behind `--`: -- rows.npy")
    rows = np.load(request.arguments[0], allow_pickle=False)
    for index in range(len(rows)):
        sys.stdout.write(f"{session.call(rows[index : index + 1])[0].argmax(-1).tolist()}\n")


class Session:
    """An engine with the memory of its two tensors."""

    def __init__(self, file: Path) -> None:
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if self._engine is None:
            raise ToolError(
                "TensorRT does not take the engine", "engines are for one version and one kind of GPU"
            )
        self._context = self._engine.create_execution_context()
        self._stream = check(runtime.cudaStreamCreate())
        self._host: dict[str, Array] = {}
        self._device: dict[str, int] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            dtype = tensorrt.nptype(self._engine.get_tensor_dtype(name))
            self._host[name] = np.zeros(tuple(self._engine.get_tensor_shape(name)), dtype)
            self._device[name] = check(runtime.cudaMalloc(self._host[name].nbytes))
            self._context.set_tensor_address(name, self._device[name])
        (self._input,) = [name for name in self._host if name != "logits"]

    def call(self, row: Array) -> Array:
        """Logits of one row with its batch dimension, int64 (1, tokens) or float32 (1, c, h, w)."""
        given, logits = self._host[self._input], self._host["logits"]
        if row.shape != given.shape:
            raise ToolError(
                f"the engine takes rows of shape {given.shape}, not {row.shape}",
                "make the binary with the `sequence_length` that the probes have",
            )
        given[...] = row
        kinds = runtime.cudaMemcpyKind
        source, target = self._device[self._input], self._device["logits"]
        check(
            runtime.cudaMemcpyAsync(
                source, given.ctypes.data, given.nbytes, kinds.cudaMemcpyHostToDevice, self._stream
            )
        )
        if not self._context.execute_async_v3(int(self._stream)):
            raise ToolError("TensorRT could not run the engine")
        check(
            runtime.cudaMemcpyAsync(
                logits.ctypes.data, target, logits.nbytes, kinds.cudaMemcpyDeviceToHost, self._stream
            )
        )
        check(runtime.cudaStreamSynchronize(self._stream))
        return logits.copy()
