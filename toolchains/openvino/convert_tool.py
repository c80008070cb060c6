"""Turns the plain ONNX export of a model into OpenVINO's format, with integer weights if asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from compressed import Use, replace, uses
from cpu import compiled
from ir_files import XML_FILE, write

from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.rounding import round_groups, round_rows

_TOLERANCE = 1e-4


def main(request: Request) -> None:
    """Inputs: onnx (the export), model. Outputs: openvino (a tree). Params: variant, fp32, int8 or int4."""
    variant = str(request.params["variant"])
    source = request.inputs["onnx"] / "model.onnx"
    # Not convert_model: it computes tables ahead that grow with the length of the sequence.
    model = ov.Core().read_model(str(source))
    packed: dict[str, PackedWeight] = {}
    if variant != "fp32":
        packed = _packed(request.inputs["model"])
        _compress(model, packed, variant)
    directory = request.outputs["openvino"]
    write(model, directory)
    before, after = (_logits(path, request.threads) for path in (source, directory / XML_FILE))
    difference = float(np.abs(before - after).max() / max(1.0, float(np.abs(before).max())))
    exact = packed or variant == "fp32"
    if not np.isfinite(difference) or (exact and difference > _TOLERANCE):
        raise ToolError(
            f"OpenVINO's answers before and after differ by {difference:.2g} of the largest logit",
            "this is a bug",
        )


def _packed(model: Path) -> dict[str, PackedWeight]:
    bits = packed_bits(read_config(model))
    return split_packed(read_tensors(model), bits)[0] if bits else {}


def _compress(model: Any, packed: Mapping[str, PackedWeight], variant: str) -> None:
    """Replace matrices by the checkpoint's integers or, when that has none at all, by rounded ones."""
    made: dict[str, Any] = {}
    placed = set()
    for use in list(uses(model)):
        if packed:
            name = _name(use, packed)
            if not name:
                continue  # What a packed checkpoint keeps in floating point stays so.
            weight = packed[name]
            if (weight.bits == 8) is not (variant == "int8"):
                raise ToolError(f"`{name}` has {weight.bits}-bit weights, which are not {variant}")
            placed.add(name)
        else:
            name, weight = use.name, _rounded(use, variant)
        replace(use, name, weight, made)
    missing = sorted(set(packed) - placed)
    if missing:
        raise ToolError(f"the packed weight `{missing[0]}` has no place in OpenVINO's graph")


def _name(use: Use, packed: Mapping[str, PackedWeight]) -> str:
    """The packed weight that has the numbers of `use`, exactly; that of its own name if there is one."""
    if use.name in packed:
        if not np.array_equal(packed[use.name].dequantized(), use.matrix):
            raise ToolError(f"the packed weight `{use.name}` is not what the export holds", "this is a bug")
        return use.name
    for name, weight in packed.items():
        if weight.codes.shape == use.matrix.shape and np.array_equal(weight.dequantized(), use.matrix):
            return name
    return ""


def _rounded(use: Use, variant: str) -> PackedWeight:
    columns = use.matrix.shape[1]
    if variant == "int4":
        return round_groups(use.matrix, 4, next((n for n in (32, 16) if columns % n == 0), columns))
    return round_rows(use.matrix)


def _logits(path: Path, threads: int) -> Any:
    model = compiled(path, threads)
    (source,) = model.inputs
    size = list(source.shape)
    rng = np.random.default_rng(0)
    if source.get_any_name() == "pixel_values":
        return model(rng.random(size, np.float32))[0]
    return model(rng.integers(0, 16, size))[0]
