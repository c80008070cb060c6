"""Export of small models. The whole tool, on a vision transformer, is in tests/rules/onnx."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from modelbuild.toolkit.onnx_export import TOLERANCE, compare, export, strip
from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import ToolError


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(8, 6)
        self.second = torch.nn.Linear(6, 4, bias=False)

    def forward(self, x: Any) -> Any:
        return self.second(torch.relu(self.first(x)))


def packed(rows: Any, columns: int, groups: int = 1, zeros: bool = False) -> Any:
    rng = np.random.default_rng(rows)
    return PackedWeight(
        rng.integers(-128, 128, (rows, columns)).astype(np.int8),
        rng.uniform(0.001, 0.01, (rows, groups)).astype(np.float32),
        rng.integers(-9, 9, (rows, groups)).astype(np.int8) if zeros else None,
        8,
    )


def exported(weights: Any, opset: int = 18) -> Any:
    torch.manual_seed(0)
    net = Net()
    file = export(
        net,
        {"x": torch.rand(2, 8)},
        weights,
        outputs=["y"],
        opset=opset,
        dynamic={"x": {0: "batch"}},
        metadata={"task": "test"},
    )
    torch.manual_seed(0)
    reference = Net()
    for name, weight in weights.items():
        reference.get_submodule(name).weight.data = torch.from_numpy(weight.dequantized())
    return file, reference


@pytest.mark.parametrize(("groups", "zeros", "opset"), [(1, False, 18), (1, True, 18), (2, False, 21)])
def test_codes_and_scales_reach_the_file_bit_for_bit(groups: int, zeros: bool, opset: int) -> None:
    weight = packed(6, 8, groups, zeros)
    file, reference = exported({"first": weight}, opset)
    proto = onnx.load_model_from_string(file)
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert stored["first.codes"].dtype == np.int8
    np.testing.assert_array_equal(stored["first.codes"], weight.codes)
    np.testing.assert_array_equal(stored["first.scale"].reshape(weight.scales.shape), weight.scales)
    x = torch.rand(5, 8)  # another number of rows than the example's
    with torch.no_grad():
        expected = reference(x).numpy()
    assert compare(file, {"y": expected}, {"x": x.numpy()}) <= TOLERANCE


def test_a_float_model_is_exported_without_traces_of_this_machine() -> None:
    file, reference = exported({})
    assert str(Path(__file__).parents[2]).encode() not in file
    assert b".py" not in file
    proto = onnx.load_model_from_string(file)
    assert {p.key: p.value for p in proto.metadata_props} == {"task": "test"}
    assert all(not node.metadata_props and not node.doc_string for node in proto.graph.node)
    x = torch.rand(3, 8)
    with torch.no_grad():
        compare(file, {"y": reference(x).numpy()}, {"x": x.numpy()})


def test_a_file_that_computes_something_else_is_refused() -> None:
    file, reference = exported({})
    x = torch.rand(3, 8)
    with torch.no_grad():
        expected = reference(x).numpy()
    for wrong in (expected + 0.001, np.full_like(expected, np.nan)):
        with pytest.raises(ToolError, match="ONNX Runtime and torch differ"):
            compare(file, {"y": wrong}, {"x": x.numpy()})
    with pytest.raises(ToolError, match="of shape"):
        compare(file, {"y": expected[:2]}, {"x": x.numpy()})


def test_a_packed_weight_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(ToolError, match="`third` belongs to no linear layer"):
        exported({"third": packed(4, 6)})


def test_a_model_that_cannot_be_exported_is_a_tool_error() -> None:
    class Looping(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else x * 2

    with pytest.raises(ToolError, match="torch cannot export"):
        export(
            Looping(),
            {"x": torch.rand(2, 8)},
            {},
            outputs=["y"],
            opset=18,
            dynamic={},
            metadata={},
        )


def test_strip_reaches_nested_graphs() -> None:
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Abs", ["x"], ["y"], doc_string="here")], "g", [], []
    )
    outer = onnx.helper.make_node("If", ["c"], ["z"], then_branch=inner, doc_string="there")
    model = onnx.helper.make_model(onnx.helper.make_graph([outer], "m", [], []), doc_string="top")
    strip(model)
    assert b"here" not in model.SerializeToString()
    assert not model.doc_string
