"""How OpenVINO runs a model here and on devices: on the CPU, in float32, the same way every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino as ov

from modelbuild.toolkit.foreign_error import foreign_errors


def compiled(path: Path, threads: int) -> Any:
    """The model of an .xml or .onnx file, compiled. Raises ToolError when OpenVINO refuses it.

    Left to itself, the plugin computes in bfloat16 where the CPU can, and rounds activations of layers with
    integer weights to 8 bits.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    with foreign_errors("OpenVINO refuses the model", RuntimeError):
        return ov.Core().compile_model(str(path), "CPU", settings)
