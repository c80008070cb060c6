"""Writes a model tree as one GGUF file for llama.cpp."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.gguf_tokenizer import read_tokenizer
from modelbuild.toolkit.model_tree import read_config, write_json
from modelbuild.toolkit.packed_weights import Array, PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import Request, ToolError

Type = gguf.GGMLQuantizationType
BLOCK = 32
"""Weights in a block of Q4_0, Q4_1 and Q8_0."""


@dataclass(frozen=True)
class Family:
    """How one Hugging Face `model_type` is written. permuted: whether llama.cpp wants the rows of q and k
    in the order of its interleaved rotary embedding.
    """

    architecture: str
    permuted: bool


FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", permuted=True),
    "mistral": Family("llama", permuted=True),
    "qwen2": Family("qwen2", permuted=False),
    "qwen3": Family("qwen3", permuted=False),
}


@dataclass(frozen=True)
class Stored:
    """One tensor as the file holds it. how: `stored` (same values), `repacked` (same codes and scales),
    `converted` (rounded to the type that was asked for).
    """

    name: str
    type: gguf.GGMLQuantizationType
    data: Array
    shape: tuple[int, ...]
    how: str


def main(request: Request) -> None:
    """Inputs: model. Outputs: model (GGUF), tensors (JSON). Params: those of the rule."""
    model = request.inputs["model"]
    params = request.params
    config = read_config(model)
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise ToolError(
            f"a model of type `{config.get('model_type')}` cannot be written as GGUF",
            f"known are {', '.join(sorted(FAMILIES))}",
        )
    stored = convert(model, config, family, params)
    writer = gguf.GGUFWriter(request.outputs["model"], family.architecture)
    _write_keys(writer, config, params)
    _write_tokenizer(writer, model, config)
    for tensor in stored:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rows = [
        {"name": t.name, "type": t.type.name, "shape": t.shape, "bytes": t.data.nbytes, "how": t.how}
        for t in stored
    ]
    write_json(request.outputs["tensors"], {"schema": 1, "tensors": rows})


def convert(
    model: Path, config: Mapping[str, Any], family: Family, params: Mapping[str, Any]
) -> list[Stored]:
    """Every tensor of the file, in the order of the layers."""
    quantization = config.get("quantization_config") or {}
    packed, plain = split_packed(read_tensors(model), packed_bits(config))
    if quantization and not packed:
        raise ToolError(f"quantization method `{quantization.get('quant_method')}` cannot be repacked")
    names = gguf.get_tensor_name_map(_architecture(family), int(config["num_hidden_layers"]))
    _tie(config, packed, plain)
    result = []
    for source in sorted({*packed, *plain}, key=_natural):
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ToolError(f"tensor `{source}` has no place in a GGUF file of `{family.architecture}`")
        order = _row_order(source, config) if family.permuted else None
        named = params["embeddings"] != "auto" and re.search(r"embed_tokens|lm_head", source)
        asked = params["embeddings"] if named else params["type"]
        if source in packed:
            weight = packed[source] if order is None else packed[source].rows(order)
            result.append(_pack(name, weight, asked, requantize=params["allow_requantize"]))
        else:
            values = plain[source] if order is None else plain[source][order]
            result.append(_float(name, values, asked, keep=bool(packed) and not named))
    return result


def _tie(config: Mapping[str, Any], packed: dict[str, PackedWeight], plain: dict[str, Array]) -> None:
    """Drop the output matrix where it is the embedding: llama.cpp then uses `token_embd` for both."""
    embedding, output = "model.embed_tokens.weight", "lm_head.weight"
    if config.get("tie_word_embeddings"):
        plain.pop(output, None)
    elif output in packed and embedding in plain:
        if np.array_equal(plain[embedding], packed[output].dequantized()):
            packed[embedding] = packed.pop(output)
            del plain[embedding]
    elif output in plain and embedding in plain and np.array_equal(plain[output], plain[embedding]):
        del plain[output]


def _row_order(source: str, config: Mapping[str, Any]) -> npt.NDArray[np.intp] | None:
    found = re.search(r"\.([qk])_proj\.(weight|bias)$", source)
    if not found:
        return None
    heads = int(config["num_attention_heads"])
    if found[1] == "k":
        heads = int(config.get("num_key_value_heads") or heads)
    half = _head_dim(config) // 2
    return np.arange(heads * half * 2).reshape(heads, 2, half).swapaxes(1, 2).reshape(-1)


def _pack(name: str, weight: PackedWeight, asked: str, *, requantize: bool) -> Stored:
    """Repack codes and scales as Q4_0 or Q8_0 without a second rounding, or say why that is impossible."""
    lossless = "Q4_0" if weight.bits <= 4 else "Q8_0"
    reason = _not_repackable(weight)
    if asked == "auto":
        asked = lossless
    if asked != lossless:
        reason = f"{weight.bits}-bit weights are not {asked}"
    if reason:
        if not requantize:
            raise ToolError(
                f"`{name}` cannot be stored as {asked} without rounding it a second time: {reason}",
                "quantize with group_size = 32, symmetric = True, or set allow_requantize = True",
            )
        return _float(name, weight.dequantized(), asked, keep=False)
    rows, columns = weight.codes.shape
    blocks = columns // BLOCK
    scales = np.repeat(weight.scales, weight.group_size // BLOCK, axis=1).astype("<f2")
    head = scales.reshape(rows, blocks, 1).view(np.uint8)
    codes = weight.codes.reshape(rows, blocks, BLOCK)
    if lossless == "Q8_0":
        body = codes.view(np.uint8)
    else:
        unsigned = (codes + np.int8(8)).view(np.uint8)
        body = unsigned[..., : BLOCK // 2] | (unsigned[..., BLOCK // 2 :] << np.uint8(4))
    data = np.concatenate([head, body], axis=2).reshape(rows, -1)
    return Stored(name, Type[lossless], data, (rows, columns), "repacked")


def _not_repackable(weight: PackedWeight) -> str:
    if weight.zeros is not None:
        return "it is asymmetric"
    if weight.codes.shape[1] % BLOCK or weight.group_size % BLOCK:
        return f"its groups of {weight.group_size} weights are not made of blocks of {BLOCK}"
    with np.errstate(over="ignore"):
        halves = weight.scales.astype(np.float16)
    if not np.array_equal(halves.astype(np.float32), weight.scales):
        return "its scales are not float16 numbers"
    return ""


def _float(name: str, values: Array, asked: str, *, keep: bool) -> Stored:
    """A tensor with float values. Vectors are always F32. keep: whether matrices stay as they are stored."""
    shape = values.shape
    kept = Type.F16 if values.dtype == np.float16 else Type.F32
    if values.ndim == 1:
        return Stored(name, Type.F32, values.astype(np.float32), shape, "stored")
    type_ = kept if asked == "auto" or keep else Type[asked]
    if type_ is kept:
        return Stored(name, kept, np.ascontiguousarray(values), shape, "stored")
    if type_ not in (Type.F32, Type.F16) and shape[-1] % BLOCK:
        raise ToolError(
            f"`{name}` has rows of {shape[-1]} weights, and {type_.name} stores blocks of {BLOCK}",
            "llama.cpp would fall back to another type; choose F16, or widths that are multiples of 32",
        )
    data = gguf.quants.quantize(np.ascontiguousarray(values, dtype=np.float32), type_)
    if type_ is Type.F16 and not np.isfinite(data).all():
        raise ToolError(f"`{name}` has weights too large for float16", "choose F32")
    how = "stored" if type_ is Type.F32 else "converted"
    return Stored(name, type_, data, shape, how)


def _write_keys(writer: gguf.GGUFWriter, config: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise ToolError(f"rotary embedding of type `{kind}` is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ToolError(f"activation `{config['hidden_act']}` is not what llama.cpp computes here")
    heads, dim = int(config["num_attention_heads"]), _head_dim(config)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(config["model_type"])
    if params["licence"]:
        writer.add_license(params["licence"])
    writer.add_file_type(_FILE_TYPES[params["file_type"]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta", config.get("rope_theta", 10000.0))))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))


def _write_tokenizer(writer: gguf.GGUFWriter, model: Path, config: Mapping[str, Any]) -> None:
    tokenizer = read_tokenizer(model, int(config["vocab_size"]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    if tokenizer.bos is not None:
        writer.add_bos_token_id(tokenizer.bos)
    if tokenizer.eos is not None:
        writer.add_eos_token_id(tokenizer.eos)
    if tokenizer.pad is not None:
        writer.add_pad_token_id(tokenizer.pad)
    writer.add_add_bos_token(tokenizer.bos is not None)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_string("modelbuild.prompt_suffix", tokenizer.prompt_suffix)
    suffix = json.dumps(tokenizer.prompt_suffix)
    writer.add_chat_template("{{ bos_token }}{{ messages[-1]['content'] }}{{ " + suffix + " }}")


_FILE_TYPES: Mapping[str, int] = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7}


def _head_dim(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))


def _architecture(family: Family) -> gguf.MODEL_ARCH:
    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
