"""Writes a model tree as one GGUF file for llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelbuild.toolkit.gguf_model import SourceTensor, source_tensors
from modelbuild.toolkit.gguf_tensor import StoredTensor, store_floats, store_packed
from modelbuild.toolkit.gguf_writer import write_gguf, write_tensor_list
from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: model. Outputs: model (GGUF), tensors (JSON). Params: those of the rule."""
    model, params = request.inputs["model"], request.params
    sources = source_tensors(model)
    packed = any(isinstance(tensor.weight, PackedWeight) for tensor in sources)
    stored = [_store(tensor, params, keep=packed) for tensor in sources]
    kind, licence = str(params["file_type"]), str(params["licence"])
    every = write_gguf(request.outputs["model"], model, stored, kind=kind, licence=licence)
    write_tensor_list(request.outputs["tensors"], every)


def _store(tensor: SourceTensor, params: Mapping[str, Any], *, keep: bool) -> StoredTensor:
    """keep: whether floats stay as they are, as beside packed weights, unless embeddings were asked for."""
    named = params["embeddings"] != "auto" and tensor.is_embedding
    asked = str(params["embeddings"] if named else params["type"])
    if isinstance(tensor.weight, PackedWeight):
        requantize = bool(params["allow_requantize"])
        return store_packed(tensor.name, tensor.weight, asked, requantize=requantize)
    return store_floats(tensor.name, tensor.weight, "auto" if keep and not named else asked)
