"""Turns the plain ONNX export of a model into one that is smaller or works on integers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import weight_only
from graph import DenseGraph, Use, check_same, write
from integer_matmul import DynamicProducts, StaticProducts
from ranges import activation_ranges
from rounding import round_groups, round_rows
from weight_only import block_of

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
    placed = _place(graph.uses(), packed, variant)
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


def _place(uses: list[Use], packed: dict[str, PackedWeight], variant: str) -> list[tuple[Use, PackedWeight]]:
    """Each use with its integers: the checkpoint's, or, when that has none at all, rounded ones.

    What a packed checkpoint keeps in floating point stays so, but for an embedding that holds the very
    numbers of a packed output matrix; the export stores such a pair once.
    """
    found = []
    for use in uses:
        if not packed:
            found.append((use, _rounded(use, variant)))
        elif use.name in packed:
            check_same(use, packed[use.name])
            found.append((use, packed[use.name]))
        else:
            found += [(replace(use, name=name), packed[name]) for name in _equal(use, packed)[:1]]
    missing = sorted(set(packed) - {use.name for use, _ in found})
    if missing:
        raise ToolError(f"the packed weight `{missing[0]}` has no place in the ONNX graph")
    looked_up, multiplied = ({use.name for use, _ in found if use.gather is kind} for kind in (True, False))
    shared = looked_up & multiplied
    return [(replace(use, shared=use.name in shared), weight) for use, weight in found]


def _equal(use: Use, packed: dict[str, PackedWeight]) -> list[str]:
    """The packed weights that are the matrix of `use` under another name."""
    alike = ((name, weight) for name, weight in packed.items() if weight.codes.shape == use.matrix.shape)
    return [name for name, weight in alike if np.array_equal(weight.dequantized(), use.matrix)]


def _rounded(use: Use, variant: str) -> PackedWeight:
    columns = use.matrix.shape[1]
    if variant == "int4":
        return round_groups(use.matrix, 4, next((n for n in (32, 16) if columns % n == 0), columns))
    if variant == "int8":
        return round_groups(use.matrix, 8, block_of(columns, columns) if columns % 16 == 0 else columns)
    return round_rows(use.matrix)


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
