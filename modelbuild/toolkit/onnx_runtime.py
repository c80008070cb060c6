"""Running ONNX files on this machine's CPU. Imports onnxruntime and numpy, never torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from modelbuild.toolkit.foreign_error import foreign_errors

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
        with foreign_errors("ONNX Runtime refuses the file", Exception):
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    @property
    def inputs(self) -> dict[str, list[int | str]]:
        """Name of each input -> its shape; a size that varies is a name."""
        return {value.name: list(value.shape) for value in self._session.get_inputs()}

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
        """The outputs by name. Raises ToolError for inputs of another shape or type."""
        names = [value.name for value in self._session.get_outputs()]
        with foreign_errors("ONNX Runtime refuses the input", Exception):
            answers = self._session.run(names, dict(inputs))
        return dict(zip(names, answers, strict=True))
