"""One GGUF file of a model tree: keys, tokenizer, tensors. Needs gguf and numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf

from modelbuild.toolkit.gguf_config import check_arithmetic, check_keys, context_length, find_family
from modelbuild.toolkit.gguf_model import head_dim
from modelbuild.toolkit.gguf_rope import rope_tensors, write_rope
from modelbuild.toolkit.gguf_tensor import StoredTensor
from modelbuild.toolkit.gguf_vocabulary import write_tokenizer
from modelbuild.toolkit.model_tree import read_config, write_json


def write_gguf(
    path: Path,
    model: Path,
    tensors: Sequence[StoredTensor],
    *,
    kind: str,
    licence: str = "",
    extra: Mapping[str, int] | None = None,
) -> list[StoredTensor]:
    """Write `tensors` with the keys and the tokenizer of the model tree; returns all that the file holds.

    kind: what the file is said to be, `F16`, `Q4_K_M`. extra: further keys with unsigned numbers.
    """
    config = read_config(model)
    every = [*rope_tensors(config, head_dim(config)), *tensors]
    writer = gguf.GGUFWriter(path, find_family(config).architecture)
    _write_keys(writer, config, kind, licence)
    for key, value in (extra or {}).items():
        writer.add_uint32(key, value)
    write_tokenizer(writer, model, int(config["vocab_size"]))
    for tensor in every:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return every


def write_tensor_list(path: Path, tensors: Sequence[StoredTensor]) -> None:
    """`tensors.json`: the type of every tensor, its shape, its bytes, and how it came to be."""
    rows = [
        {"name": t.name, "type": t.type.name, "shape": t.shape, "bytes": t.data.nbytes, "how": t.how}
        for t in tensors
    ]
    write_json(path, {"schema": 1, "tensors": rows})


def file_type(kind: str) -> int:
    """llama.cpp's number for a file that is mostly of `kind`."""
    name = "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"
    return int(gguf.LlamaFileType[name])


def _write_keys(writer: gguf.GGUFWriter, config: Mapping[str, Any], kind: str, licence: str) -> None:
    check_arithmetic(config)
    check_keys(config)
    heads, dim = int(config["num_attention_heads"]), head_dim(config)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(config["model_type"])
    if licence:
        writer.add_license(licence)
    writer.add_file_type(file_type(kind))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(context_length(config))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    write_rope(writer, config)
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
