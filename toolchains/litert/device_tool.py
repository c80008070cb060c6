"""Runs a `.tflite` file with LiteRT: logits of probes, or the answer to a row of numbers."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from modelbuild.toolkit.device_answer import answer
from modelbuild.toolkit.device_run import Array, run_probes
from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.request import Request


class LiteProgram:
    """One loaded file."""

    def __init__(self, path: Path, threads: int) -> None:
        """Raises ToolError when the runtime refuses the file."""
        with foreign_errors("LiteRT refuses the file", ValueError, RuntimeError):
            self._interpreter = Interpreter(str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]["index"]

    @property
    def row(self) -> tuple[tuple[int, ...], type[np.int64 | np.float32]]:
        """Shape and type of what it takes, (1, tokens) or (1, channels, height, width)."""
        shape = tuple(int(size) for size in self._input["shape"])
        return shape, np.float32 if self._input["dtype"] is np.float32 else np.int64

    def run(self, row: Array) -> Array:
        """The logits of one row. Tokens become 32-bit integers."""
        self._interpreter.set_tensor(self._input["index"], row.astype(self._input["dtype"]))
        self._interpreter.invoke()
        logits: Array = self._interpreter.get_tensor(self._output)
        return logits


def main(request: Request) -> None:
    """Inputs: binary, and probes unless numbers are given. Outputs: logits, timing; or text on stdout."""
    program = LiteProgram(request.inputs["binary"], request.threads)
    if "probes" in request.inputs:
        version = importlib.metadata.version("ai-edge-litert")
        run_probes(request, program.run, runtime="litert", version=version)
    else:
        answer(request.arguments, program.run, *program.row)
