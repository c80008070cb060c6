"""Runs ncnn's files on the device. Needs numpy and ncnn."""

from __future__ import annotations

import sys
from pathlib import Path

import ncnn
import numpy as np
from model_shape import read_shape
from ncnn_file import BIN, PARAM, Array

from modelbuild.toolkit.device_run import run_probes
from modelbuild.toolkit.request import Request, ToolError


def main(request: Request) -> None:
    """Inputs: binary, and probes or else arguments. Outputs: logits, timing; or classes on stdout."""
    session = Session(request.inputs["binary"], request.threads)
    if "probes" in request.inputs:
        run_probes(request, session.call, runtime="ncnn", version=ncnn.__version__)
        return
    if len(request.arguments) != 1:
        raise ToolError(
            "there is nothing to run", "name a `.npy` file with rows behind `--`: -- /tmp/rows.npy"
        )
    rows = np.load(request.arguments[0], allow_pickle=False)
    for index in range(len(rows)):
        sys.stdout.write(f"{session.call(rows[index : index + 1])[0].argmax(-1).tolist()}\n")


class Session:
    """A loaded model. Computes in float32: what halves do to the result differs from CPU to CPU."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._shape = read_shape(folder)
        self._net = ncnn.Net()
        options = self._net.opt
        options.num_threads = threads
        options.use_vulkan_compute = False
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        if self._net.load_param(str(folder / PARAM)) or self._net.load_model(str(folder / BIN)):
            raise ToolError(f"ncnn cannot load `{folder.name}`")

    def call(self, row: Array) -> Array:
        """Logits of one row with its batch dimension, int64 (1, tokens) or float32 (1, c, h, w)."""
        if row.shape != self._shape.input:
            raise ToolError(
                f"the model takes rows of shape {self._shape.input}, not {row.shape}",
                "make the binary with the `sequence_length` that the probes have",
            )
        if row.ndim == 2 and not 0 <= row.min() <= row.max() < self._shape.classes:
            raise ToolError(f"a token is not one of the {self._shape.classes} that the model knows")
        kind = np.int32 if row.ndim == 2 else np.float32
        extractor = self._net.create_extractor()
        if extractor.input("in0", ncnn.Mat(np.ascontiguousarray(row[0], dtype=kind)).clone()):
            raise ToolError("ncnn refuses the input")
        status, logits = extractor.extract("out0")
        if status:
            raise ToolError(f"ncnn failed with status {status}")
        return np.array(logits)[None]
