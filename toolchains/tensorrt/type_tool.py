"""Types the ONNX export of a model for TensorRT, and compares it with the export in ONNX Runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from typed_graph import Array, Product, Ranges, TypedGraph, round_rows

from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

_FILE = "model.onnx"
_TOLERANCE = 2e-2
"""How far a logit of the float16 graph may be from the export's, as a part of the largest logit."""
_LIMIT_BYTES = 2**31 - 1


def main(request: Request) -> None:
    """Inputs: onnx (the export), model; for int8 also calibration. Outputs: onnx. Params: precision."""
    export = request.inputs["onnx"] / _FILE
    graph = TypedGraph(onnx.load(export))
    products = list(graph.products())
    quantized: set[int] = set()
    if request.params["precision"] == "int8":
        quantized = _quantize(request, graph, products)
    for product in products:
        if product.index not in quantized:
            graph.halve(product)
    graph.halve_tables()
    typed = graph.finish()
    if typed.ByteSize() > _LIMIT_BYTES:
        raise ToolError("the typed graph is larger than 2 GiB, which one ONNX file cannot hold")
    target = request.outputs["onnx"]
    target.mkdir()
    (target / _FILE).write_bytes(typed.SerializeToString(deterministic=True))
    difference = _difference(export, target / _FILE, request.threads)
    if not difference <= _TOLERANCE and not quantized:
        raise ToolError(
            f"in float16 a logit is {difference:.2g} of the largest away from float32",
            "its activations do not fit float16; choose another runtime",
        )
    report(1, 1, unit="graphs", max_difference=difference)


def _quantize(request: Request, graph: TypedGraph, products: list[Product]) -> set[int]:
    """Quantize every product with a weight; the indices of those."""
    model = request.inputs["model"]
    bits = packed_bits(read_config(model))
    packed = split_packed(read_tensors(model), bits)[0] if bits else {}
    names = {_content(weight.dequantized()): name for name, weight in packed.items()}
    linear = [(product, product.weight[1]) for product in products if product.weight is not None]
    ranges = _ranges(request, {product.data for product, _ in linear})
    found: dict[int, str] = {}
    for product, matrix in linear:
        name = names.get(_content(matrix.T), "")
        if packed and not name:
            continue  # The checkpoint keeps it in floating point.
        codes, scales = _kept(name, packed[name]) if name else round_rows(matrix)
        graph.quantize(product, codes, scales, ranges[product.data])
        found[product.index] = name
    unplaced = sorted(set(names.values()) - set(found.values()))
    if any(not _is_embedding(name) for name in unplaced):
        raise ToolError(f"the packed weight `{unplaced[0]}` has no place in the ONNX graph")
    return set(found)


def _is_embedding(name: str) -> bool:
    return "embed" in name


def _kept(name: str, weight: PackedWeight) -> tuple[Array, Array]:
    if weight.zeros is not None or weight.scales.shape[1] != 1:
        raise ToolError(
            f"`{name}` is not symmetric with one scale a row, as products of integers need",
            "quantize with group_size = 0, symmetric = True, or choose tensorrt:fp16",
        )
    return np.ascontiguousarray(weight.codes.T), weight.scales[:, 0]


def _ranges(request: Request, wanted: set[str]) -> Ranges:
    """The largest magnitude of each activation over the calibration rows, as ONNX Runtime computes them."""
    model = onnx.load(request.inputs["onnx"] / _FILE)
    names = sorted(wanted)
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    session = _session(model.SerializeToString(), request.threads)
    rows = np.load(request.inputs["calibration"], allow_pickle=False)
    reach = np.zeros(len(names))
    for index in range(len(rows)):
        values = session.run(names, {session.get_inputs()[0].name: rows[index : index + 1]})
        reach = np.maximum(reach, [float(np.abs(value).max()) for value in values])
        report(index + 1, len(rows), unit="calibration rows")
    if not np.isfinite(reach).all():
        raise ToolError("activations are not finite numbers over the calibration rows")
    return dict(zip(names, reach.tolist(), strict=True))


def _session(model: bytes | str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _difference(export: Path, typed: Path, threads: int) -> float:
    answers = []
    for path in (export, typed):
        session = _session(str(path), threads)
        (source,) = session.get_inputs()
        generator = np.random.default_rng(0)
        row = generator.random(source.shape, np.float32)
        if source.type == "tensor(int64)":
            row = generator.integers(0, 16, source.shape)
        answers.append(session.run(["logits"], {source.name: row})[0])
    found = float(np.abs(answers[0] - answers[1]).max() / max(float(np.abs(answers[0]).max()), 1e-30))
    if not np.isfinite(found):
        raise ToolError("the logits of the typed graph are not all finite numbers")
    return found


def _content(values: Array) -> tuple[tuple[int, ...], str]:
    return values.shape, hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()
