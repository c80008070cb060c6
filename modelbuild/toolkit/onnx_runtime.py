"""Running ONNX files on this machine's CPU. Imports onnxruntime and numpy, never torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from modelbuild.toolkit.request import ToolError

_ERRORS_ONLY = 3


class OnnxModel:
    """One loaded file. Its answers are the same every time: one kind of kernel, a fixed number of threads."""

    def __init__(self, file: Path | bytes, threads: int = 1) -> None:
        """Raises ToolError when ONNX Runtime refuses the file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.use_deterministic_compute = True
        source = file if isinstance(file, bytes) else str(file)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise ToolError(f"ONNX Runtime refuses the file: {_first_line(error)}") from error

    @property
    def inputs(self) -> dict[str, list[int | str]]:
        """Name of each input -> its shape; a size that varies is a name."""
        return {value.name: list(value.shape) for value in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
        """The outputs by name. Raises ToolError for inputs of another shape or type."""
        names = [value.name for value in self._session.get_outputs()]
        try:
            answers = self._session.run(names, dict(inputs))
        except Exception as error:
            raise ToolError(f"ONNX Runtime refuses the input: {_first_line(error)}") from error
        return dict(zip(names, answers, strict=True))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
