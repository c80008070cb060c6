"""Turns the plain ONNX export of a model into one that is smaller or works on integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import weight_only
from graph import DenseGraph, Use, write
from integer_matmul import DynamicProducts, StaticProducts
from placing import place
from ranges import activation_ranges

from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.onnx_runtime import OnnxModel
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import Request, ToolError

_TOLERANCE = 1e-4
_WEIGHT_ONLY = ("int8", "int4")


def main(request: Request) -> None:
    """Inputs: onnx (the export), model and, for int8-static, calibration. Outputs: onnx (a tree).

    Params: variant, one of int8, int4 (integer weights), int8-dynamic, int8-static (integer products).
    """
    variant = str(request.params["variant"])
    dense, model = request.inputs["onnx"], request.inputs["model"]
    graph = DenseGraph(dense)
    packed = _packed(model)
    placed = place(graph.uses(), packed, variant)
    if variant in _WEIGHT_ONLY:
        _weights_only(graph, placed, variant)
    else:
        _integer_products(request, graph, placed, variant)
    write(graph.proto(), request.outputs["onnx"])
    answers = [_logits(directory, request.threads) for directory in (dense, request.outputs["onnx"])]
    difference = float(np.abs(answers[0] - answers[1]).max() / max(1.0, float(np.abs(answers[0]).max())))
    if not np.isfinite(difference):
        raise ToolError("ONNX Runtime's logits are not all finite numbers")
    if packed and variant in _WEIGHT_ONLY and difference > _TOLERANCE:
        raise ToolError(
            f"packing must lose nothing, and the logits differ by {difference:.2g} of the largest",
            "this is a bug",
        )


def _packed(model: Path) -> dict[str, PackedWeight]:
    bits = packed_bits(read_config(model))
    return split_packed(read_tensors(model), bits)[0] if bits else {}


def _weights_only(graph: DenseGraph, placed: list[tuple[Use, PackedWeight]], variant: str) -> None:
    for use, weight in placed:
        if (weight.bits == 8) is not (variant == "int8"):
            raise ToolError(f"`{use.name}` has {weight.bits}-bit weights, which are not {variant}")
        weight_only.replace(graph, use, weight)


def _integer_products(
    request: Request, graph: DenseGraph, placed: list[tuple[Use, PackedWeight]], variant: str
) -> None:
    products: DynamicProducts | StaticProducts
    if variant == "int8-static":
        rows = np.load(request.inputs["calibration"], allow_pickle=False)
        data = {use.data for use, _ in placed if not use.gather}
        found = activation_ranges(request.inputs["onnx"], data, rows, request.threads)
        products = StaticProducts(graph, found)
    else:
        products = DynamicProducts(graph)
    for use, weight in placed:
        if use.gather:
            weight_only.replace(graph, use, weight)
        elif weight.bits != 8 or weight.zeros is not None or weight.scales.shape[1] != 1:
            raise ToolError(
                f"`{use.name}` is not 8-bit, symmetric with one scale a row, as integer products need",
                "quantize with bits = 8, group_size = 0, or choose `onnx:int8` or `onnx:int4`",
            )
        else:
            products.replace(use, weight)


def _logits(directory: Path, threads: int) -> np.ndarray:
    model = OnnxModel(directory / "model.onnx", threads)
    (name,), (shape,) = model.inputs.keys(), model.inputs.values()
    rng = np.random.default_rng(0)
    size = [int(each) for each in shape]
    row = rng.random(size, np.float32) if name == "pixel_values" else rng.integers(0, 16, size)
    return model.run({name: row})["logits"]
