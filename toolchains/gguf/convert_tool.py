"""Writes a model tree as a GGUF file with the type of every tensor as planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from modelbuild.toolkit.gguf_ggml import quantize_with_ggml
from modelbuild.toolkit.gguf_imatrix import Imatrix, read_imatrix
from modelbuild.toolkit.gguf_model import SourceTensor, source_tensors
from modelbuild.toolkit.gguf_tensor import StoredTensor, store_floats, store_packed
from modelbuild.toolkit.gguf_writer import write_gguf, write_tensor_list
from modelbuild.toolkit.packed_weights import Array, PackedWeight
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

_OUTPUT = "lm_head.weight"
_TERNARY = ("TQ1_0", "TQ2_0")
_LOST = 0.1
"""Share of a ternary matrix that may change: its scale becomes float16, which is 0.0005 at most."""


def main(request: Request) -> None:
    """Inputs: model, imatrix where one is used. Outputs: model (GGUF), tensors (JSON).

    Params: kind (`Q4_K_M`), types (name of a tensor in the model -> its type), licence, allow_requantize.
    """
    params, model = request.params, request.inputs["model"]
    types: Mapping[str, str] = params["types"]
    matrix = read_imatrix(request.inputs["imatrix"]) if "imatrix" in request.inputs else None
    sources = source_tensors(model, untied=_OUTPUT in types)
    _check_plan(sources, types)
    stored: list[StoredTensor] = []
    for source in sources:
        stored.append(_store(source, types[source.source], matrix, request))
        report(len(stored), len(sources), unit="tensors")
    extra = {}
    if matrix is not None:
        extra["quantize.imatrix.entries_count"] = len(matrix.sums)
        extra["quantize.imatrix.chunks_count"] = matrix.chunks
    kind, licence = str(params["kind"]), str(params["licence"])
    every = write_gguf(request.outputs["model"], model, stored, kind=kind, licence=licence, extra=extra)
    write_tensor_list(request.outputs["tensors"], every)


def _check_plan(sources: Sequence[SourceTensor], types: Mapping[str, str]) -> None:
    """Sizes were promised for exactly these tensors: another set is an error."""
    names = {source.source for source in sources}
    if names != set(types):
        found, missing = sorted(names - set(types)), sorted(set(types) - names)
        raise ToolError(
            "the model has other tensors than its architecture says:"
            f" not planned {found[:5]}, not found {missing[:5]}"
        )


def _store(source: SourceTensor, type_: str, matrix: Imatrix | None, request: Request) -> StoredTensor:
    def quantize(values: npt.NDArray[np.float32], to: Type) -> Array:
        importance = matrix.importance(source.name) if matrix is not None else None
        if matrix is not None and importance is None and not source.is_embedding:
            raise ToolError(
                f"the importance matrix knows nothing of `{source.name}`", "measure it on this very model"
            )
        rounded = quantize_with_ggml(values, to, importance, threads=request.threads)
        if to.name in _TERNARY:
            _check_ternary(source.source, values, rounded, to)
        return rounded

    if isinstance(source.weight, PackedWeight):
        requantize = bool(request.params["allow_requantize"])
        stored = store_packed(source.name, source.weight, type_, requantize=requantize, quantize=quantize)
    else:
        stored = store_floats(source.name, source.weight, type_, quantize=quantize)
    if stored.type.name != type_:
        raise ToolError(f"`{source.name}` became {stored.type.name}, and {type_} was planned")
    return stored


def _check_ternary(name: str, values: npt.NDArray[np.float32], rounded: Array, type_: Type) -> None:
    """Other weights would be lost for the most part: of a normal distribution four fifths."""
    difference = gguf.quants.dequantize(rounded, type_) - values
    lost = float(np.linalg.norm(difference)) / (float(np.linalg.norm(values)) or 1.0)
    if lost > _LOST:
        raise ToolError(
            f"the weights of `{name}` are not -s, 0 and s: {type_.name} would change them by {lost:.0%}",
            "it is for models that were trained so; choose Q2_K, or more bits",
        )
