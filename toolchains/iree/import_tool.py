"""Reads an ONNX model into MLIR, the form that IREE compiles for every device."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
from iree.compiler import ir
from iree.compiler.extras import onnx_importer

from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.request import Request, ToolError


def main(request: Request) -> None:
    """Inputs: onnx (a tree with `model.onnx`). Outputs: mlir (bytecode, weights included). Params: none.

    The function is called `main`, whatever the graph was called.
    """
    proto = _with_shapes(request.inputs["onnx"] / "model.onnx")
    proto.graph.name = "main"
    with ir.Context() as context:
        kinds = (onnx_importer.OnnxImportError, ir.MLIRError)
        with foreign_errors("IREE cannot import this ONNX file", *kinds):
            info = onnx_importer.ModelInfo(proto)
            module = info.create_module(context=context).operation
            onnx_importer.NodeImporter.define_function(info.main_graph, module).import_all()
            _state_input(module, proto.graph)
            module.verify()
        with request.outputs["mlir"].open("wb") as stream:
            module.write_bytecode(stream)


def _state_input(module: Any, graph: Any) -> None:
    """Note in the module what its input looks like, `1x64xi64`, for programs that load it."""
    tensor = graph.input[0].type.tensor_type
    sizes = [str(dimension.dim_value) for dimension in tensor.shape.dim]
    types = {onnx.TensorProto.INT64: "i64", onnx.TensorProto.FLOAT: "f32"}
    if len(graph.input) != 1 or "0" in sizes or tensor.elem_type not in types:
        raise ToolError("the ONNX model must have one input of a fixed shape, of int64 or float32")
    stated = ir.StringAttr.get("x".join([*sizes, types[tensor.elem_type]]))
    function = module.regions[0].blocks[0].operations[0]
    function.attributes["iree.reflection"] = ir.DictAttr.get({"input": stated})


def _with_shapes(path: Path) -> Any:
    """The model with the shape of every value; weights that lie beside the file are read after that."""
    beside = path.with_name("model.onnx.data")
    if not beside.is_file():
        return onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    with tempfile.TemporaryDirectory() as directory:
        inferred = Path(directory) / "model.onnx"
        onnx.shape_inference.infer_shapes_path(str(path), str(inferred), data_prop=True)
        proto = onnx.load(inferred, load_external_data=False)
    onnx.load_external_data_for_model(proto, str(path.parent))
    return proto
