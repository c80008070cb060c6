"""Runs an ONNX binary on the device's CPU, through ONNX Runtime."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import onnxruntime

from modelbuild.toolkit.device_run import run_probes
from modelbuild.toolkit.onnx_runtime import OnnxModel
from modelbuild.toolkit.request import Request, ToolError

_SHOWN = 5


def main(request: Request) -> None:
    """Inputs: binary (a tree) and, to be asked, probes. Outputs then: logits, timing.

    Arguments, from `modelbuild run`: the numbers of one row, token ids or brightnesses; it prints what the
    model puts first.
    """
    model = OnnxModel(request.inputs["binary"] / "model.onnx", request.threads)
    ((name, shape),) = model.inputs.items()

    def call(row: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        return model.run({name: row})["logits"]

    if "probes" in request.inputs:
        run_probes(request, call, runtime="onnxruntime", version=onnxruntime.__version__)
        return
    sizes = [int(size) for size in shape]
    row = _row(request.arguments, sizes, tokens=name == "input_ids")
    logits = call(row.reshape(sizes))
    last = logits[0, len(request.arguments) - 1] if name == "input_ids" else logits[0]
    order = np.argsort(-last, kind="stable")[:_SHOWN]
    sys.stdout.write("".join(f"{index}\t{last[index]:.4f}\n" for index in order))


def _row(arguments: tuple[str, ...], sizes: list[int], *, tokens: bool) -> npt.NDArray[np.generic]:
    wanted = int(np.prod(sizes))
    what = "token ids" if tokens else "brightnesses"
    hint = f"give {'up to ' if tokens else ''}{wanted} {what}, separated by spaces"
    try:
        numbers = np.array(arguments, dtype=np.int64 if tokens else np.float32)
    except ValueError as error:
        raise ToolError(f"an argument is no number: {error}", hint) from error
    if not len(numbers) or len(numbers) > wanted or (len(numbers) < wanted and not tokens):
        raise ToolError(f"there are {len(numbers)} {what}, not {wanted}", hint)
    return np.pad(numbers, (0, wanted - len(numbers)))  # Attention is causal: what follows does not matter.
