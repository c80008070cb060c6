"""The graphs that TensorRT gets, computed by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from modelbuild.api import Conversion, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner, run_tool
from modelbuild.toolkit.packed_weights import read_tensors, split_packed
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call
from tests.toolchains.workshop import (
    HERE,
    LENGTH,
    WIDE_LLAMA,
    WIDE_VIT,
    BuiltModel,
    random_model,
    rounded_model,
)
from toolchains.tensorrt import rule
from toolchains.tensorrt.rule import TensorrtToolchain

pytestmark = pytest.mark.slow

TYPE = Path(rule.__file__).with_name("type_tool.py")


@dataclass(frozen=True)
class Case:
    """A model, its export, and rows to ask it."""

    model: BuiltModel
    export: Path
    rows: npt.NDArray[Any]
    file: Path


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("models")
    llama = random_model(folder / "llama", WIDE_LLAMA)
    vit = random_model(folder / "vit", WIDE_VIT)
    models = {
        "llama": llama,
        "vit": vit,
        "vit-int8": rounded_model(vit, folder / "vit-int8", bits=8, group_size=0),
        "llama-int8": rounded_model(llama, folder / "llama-int8", bits=8, group_size=0),
        "llama-int8f": rounded_model(llama, folder / "int8f", bits=8, group_size=0, embeddings="float"),
        "llama-int4": rounded_model(llama, folder / "llama-int4"),
    }
    found = {}
    for name, model in models.items():
        params: dict[str, Any] = {"task": "image_classification"}
        if model.info.is_text:
            params = {"task": "language_model", "sequence_length": LENGTH}
        export, file = folder / f"{name}-onnx", folder / f"{name}.npy"
        call("onnx/export_tool.py", params, {"model": model.path}, {"onnx": export})
        rows = model.rows(16)
        np.save(file, rows)
        found[name] = Case(model, export, rows, file)
    return found


def typed(case: Case, precision: str, directory: Path) -> onnx.ModelProto:
    directory.mkdir()
    inputs = {"onnx": case.export, "model": case.model.path}
    if precision == "int8":
        inputs["calibration"] = case.file
    made = run_tool(TYPE, directory, inputs=inputs, outputs=["onnx"], params={"precision": precision})
    return onnx.load(made["onnx"] / "model.onnx")


def answer(model: onnx.ModelProto, row: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: npt.NDArray[np.float32] = session.run(["logits"], {session.get_inputs()[0].name: row})[0]
    return found


@pytest.mark.parametrize(
    ("name", "precision", "bound"),
    [
        ("llama", "fp16", 4e-3),
        ("llama", "int8", 0.2),
        ("llama-int8f", "int8", 0.2),
        ("vit", "fp16", 4e-3),
        ("vit", "int8", 0.1),
        ("llama-int4", "fp16", 4e-3),
    ],
)
def test_the_typed_graph_answers_as_the_export(
    cases: dict[str, Case], tmp_path: Path, name: str, precision: str, bound: float
) -> None:
    """bound: of a difference, as a part of the largest logit."""
    case = cases[name]
    model = typed(case, precision, tmp_path / "1")
    expected = answer(onnx.load(case.export / "model.onnx"), case.rows[:1])
    found = answer(model, case.rows[:1])
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < bound * np.abs(expected).max()
    again = typed(case, precision, tmp_path / "2")
    assert model.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    info: RuntimeToolchainInfo = (
        RuleRunner().analyze(TensorrtToolchain, gpu_architecture="sm_90").get(RuntimeToolchainInfo)
    )
    weights = sum(numpy_helper.to_array(each).nbytes for each in model.graph.initializer)
    predicted = info.footprint(Conversion(case.model.info, f"tensorrt:{precision}", HERE)).disk
    assert abs(predicted - weights) < 0.03 * weights


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_types_are_where_they_should_be(cases: dict[str, Case], tmp_path: Path, precision: str) -> None:
    model = typed(cases["llama"], precision, tmp_path / "made")
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    kinds = {each.name: each.type.tensor_type.elem_type for each in values}
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {each.name: each for each in model.graph.initializer}
    counts = {"half": 0, "integer": 0, "angles": 0}
    for node in model.graph.node:
        if node.op_type in ("Softmax", "Pow", "ReduceMean", "Sqrt", "LayerNormalization"):
            assert kinds[node.output[0]] == TensorProto.FLOAT
        if node.op_type != "MatMul":
            continue
        if node.input[0] in weights:
            counts["angles"] += kinds[node.output[0]] == TensorProto.FLOAT
            continue
        sources = [makers.get(name) for name in node.input]
        if kinds[node.output[0]] == TensorProto.FLOAT16:
            counts["half"] += 1
        elif all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
            counts["integer"] += 1
    linear = 2 * 7 + 1
    expected = {"half": linear + 4, "integer": 0} if precision == "fp16" else {"half": 4, "integer": linear}
    assert counts == {**expected, "angles": 1}


@pytest.mark.parametrize("name", ["vit-int8", "llama-int8"])
def test_packed_weights_keep_their_codes(cases: dict[str, Case], tmp_path: Path, name: str) -> None:
    case = cases[name]
    model = typed(case, "int8", tmp_path / "made")
    found = {
        numpy_helper.to_array(each).T.tobytes()
        for each in model.graph.initializer
        if each.data_type == TensorProto.INT8 and len(each.dims) == 2
    }
    packed, _ = split_packed(read_tensors(case.model.path), 8)
    linear = {key: weight for key, weight in packed.items() if "embed" not in key}
    assert {weight.codes.tobytes() for weight in linear.values()} == found


def test_a_scale_for_32_weights_is_refused(cases: dict[str, Case], tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="not symmetric with one scale a row"):
        typed(cases["llama-int4"], "int8", tmp_path / "made")
