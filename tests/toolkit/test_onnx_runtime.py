from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelbuild.toolkit.onnx_runtime import OnnxModel
from modelbuild.toolkit.request import ToolError


@pytest.fixture
def doubling() -> Any:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [value("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 2])],
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def test_runs_a_file_from_bytes_or_disk(doubling: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(doubling)
    x = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    for source in (doubling, tmp_path / "m.onnx"):
        model = OnnxModel(source)
        assert model.inputs == {"x": ["n", 2]}
        np.testing.assert_array_equal(model.run({"x": x})["y"], 2 * x)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ToolError, match="ONNX Runtime refuses the file"):
        OnnxModel(tmp_path / "m.onnx")


def test_an_input_of_another_shape_is_refused(doubling: bytes) -> None:
    with pytest.raises(ToolError, match="ONNX Runtime refuses the input"):
        OnnxModel(doubling).run({"x": np.zeros((1, 3), dtype=np.float32)})
