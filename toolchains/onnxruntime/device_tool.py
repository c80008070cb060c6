"""Runs an ONNX binary on the device's CPU, through ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime

from modelbuild.toolkit.device_answer import answer
from modelbuild.toolkit.device_run import Array, run_probes
from modelbuild.toolkit.onnx_runtime import OnnxModel
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: binary (a tree), and probes unless numbers are given. Outputs: logits, timing; or text."""
    model = OnnxModel(request.inputs["binary"] / "model.onnx", request.threads)
    ((name, sizes),) = model.inputs.items()

    def call(row: Array) -> Array:
        return model.run({name: row})["logits"]

    if "probes" in request.inputs:
        run_probes(request, call, runtime="onnxruntime", version=onnxruntime.__version__)
    else:
        shape = tuple(int(size) for size in sizes)
        answer(request.arguments, call, shape, np.int64 if name == "input_ids" else np.float32)
