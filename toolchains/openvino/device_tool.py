"""Runs an OpenVINO model on the device's CPU."""

from __future__ import annotations

import numpy as np
import openvino as ov
from cpu import compiled

from modelbuild.toolkit.device_answer import answer
from modelbuild.toolkit.device_run import Array, run_probes
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: binary (a tree), and probes unless numbers are given. Outputs: logits, timing; or text."""
    model = compiled(request.inputs["binary"] / "model.xml", request.threads)
    (source,) = model.inputs

    def call(row: Array) -> Array:
        # A copy: the next call writes its logits to the same place.
        return np.array(model(row)[0])

    if "probes" in request.inputs:
        run_probes(request, call, runtime="openvino", version=ov.__version__)
    else:
        kind = np.int64 if source.get_any_name() == "input_ids" else np.float32
        answer(request.arguments, call, tuple(source.shape), kind)
