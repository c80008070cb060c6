"""Runs a `.pte` file in ExecuTorch: logits of probes, or the answer to a row of numbers."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import torch
from executorch.runtime import Runtime

from modelbuild.toolkit.device_answer import answer
from modelbuild.toolkit.device_run import Array, run_probes
from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.request import Request

_INT64 = 4
"""ExecuTorch's number of the type, torch's ScalarType::Long."""


class Program:
    """One loaded file."""

    def __init__(self, path: Path) -> None:
        """Raises ToolError when the runtime refuses the file."""
        with foreign_errors("ExecuTorch refuses the file", RuntimeError):
            self._method = Runtime.get().load_program(path).load_method("forward")

    @property
    def row(self) -> tuple[tuple[int, ...], type[np.int64 | np.float32]]:
        """Shape and type of what it takes, (1, tokens) or (1, channels, height, width)."""
        taken = self._method.metadata.input_tensor_meta(0)
        return tuple(taken.sizes()), np.int64 if taken.dtype() == _INT64 else np.float32

    def run(self, row: Array) -> Array:
        """The logits of one row."""
        logits: Array = self._method.execute([torch.from_numpy(row)])[0].numpy().copy()
        return logits


def main(request: Request) -> None:
    """Inputs: binary, and probes unless numbers are given. Outputs: logits, timing; or text on stdout."""
    torch.set_num_threads(request.threads)
    program = Program(request.inputs["binary"])
    if "probes" in request.inputs:
        version = importlib.metadata.version("executorch")
        run_probes(request, program.run, runtime="executorch", version=version)
    else:
        answer(request.arguments, program.run, *program.row)
