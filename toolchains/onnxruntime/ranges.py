"""How far activations go, over calibration rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import ToolError


def activation_ranges(
    directory: Path, names: Iterable[str], rows: np.ndarray, threads: int
) -> dict[str, tuple[float, float]]:
    """The least and greatest value of each named tensor of the export, over every row.

    rows: (n, tokens) int64 or (n, channels, height, width) float32. Raises ToolError for values that are no
    numbers.
    """
    wanted = sorted(set(names))
    model = onnx.load_model(directory / "model.onnx")
    own = {value.name for value in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted if name not in own
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (source,) = session.get_inputs()
    low = np.full(len(wanted), np.inf)
    high = np.full(len(wanted), -np.inf)
    for index in range(len(rows)):
        values = session.run(wanted, {source.name: rows[index : index + 1]})
        low = np.minimum(low, [float(value.min()) for value in values])
        high = np.maximum(high, [float(value.max()) for value in values])
        report(index + 1, len(rows), unit="calibration rows")
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ToolError("activations are not finite numbers over the calibration rows")
    return {name: (low[at], high[at]) for at, name in enumerate(wanted)}
