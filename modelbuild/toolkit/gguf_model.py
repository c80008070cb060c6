"""A model tree as the tensors of a GGUF file: names, order of rows, what is stored once. Needs gguf."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.gguf_config import find_family
from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import Array, PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import ToolError

_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class SourceTensor:
    """One tensor of the file to be. name: in GGUF, `blk.0.attn_q.weight`. source: in the model tree.
    weight: floats as the model stores them, or packed integers; rows are in llama.cpp's order.
    """

    name: str
    source: str
    weight: Array | PackedWeight

    @property
    def is_embedding(self) -> bool:
        """Whether it is the embedding or the output matrix."""
        return self.name in ("token_embd.weight", "output.weight")


class TensorNames:
    """GGUF's names of the tensors of one model."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._family = find_family(config)
        architecture = next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == self._family.architecture)
        self._names = gguf.get_tensor_name_map(architecture, int(config["num_hidden_layers"]))

    def __getitem__(self, source: str) -> str:
        name = self._names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ToolError(f"tensor `{source}` has no place in a GGUF file of `{self._family.architecture}`")
        return str(name)


def source_tensors(model: Path, *, untied: bool = False) -> list[SourceTensor]:
    """Every tensor that the file will hold, in the order of the layers.

    The output matrix is left out where it is the embedding: llama.cpp then uses `token_embd` for both.
    untied: keep it though its values are the same, unless the model says that it is tied.
    """
    config = read_config(model)
    family, names = find_family(config), TensorNames(config)
    quantization = config.get("quantization_config") or {}
    packed, plain = split_packed(read_tensors(model), packed_bits(config))
    if quantization and not packed:
        raise ToolError(f"quantization method `{quantization.get('quant_method')}` cannot be repacked")
    if config.get("tie_word_embeddings"):
        plain.pop(_OUTPUT, None)
    elif not untied:
        _tie(packed, plain)
    result = []
    for source in sorted({*packed, *plain}, key=_natural):
        order = _row_order(source, config) if family.permuted else None
        weight: Array | PackedWeight
        if source in packed:
            weight = packed[source] if order is None else packed[source].rows(order)
        else:
            weight = plain[source] if order is None else plain[source][order]
        result.append(SourceTensor(names[source], source, weight))
    return result


def head_dim(config: Mapping[str, Any]) -> int:
    """Width of an attention head."""
    return int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))


def _tie(packed: dict[str, PackedWeight], plain: dict[str, Array]) -> None:
    if _OUTPUT in packed and _EMBEDDING in plain:
        if np.array_equal(plain[_EMBEDDING], packed[_OUTPUT].dequantized()):
            packed[_EMBEDDING] = packed.pop(_OUTPUT)
            del plain[_EMBEDDING]
    elif _OUTPUT in plain and _EMBEDDING in plain and np.array_equal(plain[_OUTPUT], plain[_EMBEDDING]):
        del plain[_OUTPUT]


def _row_order(source: str, config: Mapping[str, Any]) -> npt.NDArray[np.intp] | None:
    found = re.search(r"\.([qk])_proj\.(weight|bias)$", source)
    if not found:
        return None
    heads = int(config["num_attention_heads"])
    if found[1] == "k":
        heads = int(config.get("num_key_value_heads") or heads)
    half = head_dim(config) // 2
    return np.arange(heads * half * 2).reshape(heads, 2, half).swapaxes(1, 2).reshape(-1)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
