"""GGUF files: the type of every tensor and the bytes of the whole, told from the architecture alone.

The bytes of tensors are exact. Those of the header are an estimate, since the text of the tokens is not known
before the tokenizer is made; they are a few hundredths of a small file and nothing of a large one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any

from modelbuild.architecture import WeightTensor, complete_architecture, weight_tensors
from modelbuild.errors import AnalysisError
from modelbuild.gguf_mix import FILE_TYPES, Mix, embedding_type, matrix_type, output_type
from modelbuild.toolkit.gguf_config import FAMILIES, check_arithmetic, context_length, rope_parameters
from modelbuild.toolkit.request import ToolError

BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "IQ1_S": (256, 50),
    "IQ1_M": (256, 56),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ2_S": (256, 82),
    "IQ3_XXS": (256, 98),
    "IQ3_S": (256, 110),
    "IQ4_NL": (32, 18),
    "IQ4_XS": (256, 136),
}
"""Type -> weights in a block, and bytes of a block. A row is made of whole blocks."""

_FALLBACKS: Mapping[str, str] = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
}
"""What llama.cpp takes where rows do not fit; IQ4_NL for the rest."""
_ALIGNMENT = 32
_KEYS, _FAMILY_KEYS, _FAMILY = 1_332, 13, len("llama")
"""Bytes of the keys beside the vocabulary, of a llama; how many of them name the family, which is so long."""
_INFO = 45
"""Bytes of the name, the type and the place of a tensor."""
_SINGLE, _SINGLE_TEXT = 259, 433
"""Tokens of byte-level BPE that are no merges, three for control with them, and the bytes of their texts."""


def gguf_refusal(architecture: Mapping[str, Any]) -> str:
    """Why llama.cpp would not compute what transformers does; empty when it would.

    The tool that writes the file asks the same of `config.json`.
    """
    try:
        check_arithmetic(architecture)
    except ToolError as error:
        return error.message
    return ""


def gguf_context_length(architecture: Mapping[str, Any]) -> int:
    """Tokens that a GGUF file of the model says it is for, of a model that `gguf_refusal` does not refuse.

    No more than a sliding window is wide: llama.cpp has none for these families.
    """
    return context_length(architecture)


def tensor_types(
    architecture: Mapping[str, Any],
    file_type: str,
    *,
    pure: bool = False,
    imatrix: bool = False,
    fallback: bool = False,
) -> dict[str, str]:
    """The type of every tensor, by its Hugging Face name.

    pure: every matrix gets the one type, as with `llama-quantize --pure`. imatrix: there is an importance
    matrix, by which llama.cpp chooses some types. fallback: where rows are not whole blocks, take the type
    that llama.cpp takes without a word; else that is an AnalysisError, as is an unknown file type or model.
    """
    if file_type not in FILE_TYPES:
        raise AnalysisError(
            f"GGUF has no file type `{file_type}`", hint=f"its file types are {', '.join(FILE_TYPES)}"
        )
    keys = complete_architecture(architecture)
    if "vocab_size" not in keys:
        raise AnalysisError(f"GGUF takes language models, not a `{keys['model_type']}`")
    mix = Mix(
        file_type,
        layers=keys["num_hidden_layers"],
        heads=keys["num_attention_heads"],
        key_value_heads=keys["num_key_value_heads"],
        imatrix=imatrix,
        tied=keys["tie_word_embeddings"],
    )
    plain = pure or BLOCKS[mix.base][0] == 1
    return {
        tensor.name: _fitting(tensor, _wanted(tensor, mix, plain=plain), fallback=fallback)
        for tensor in weight_tensors(keys)
    }


def tensor_bytes(tensor: WeightTensor, type_: str) -> int:
    """Bytes of a tensor whose rows are whole blocks of `type_`."""
    weights, size = BLOCKS[type_]
    return tensor.parameters // weights * size


def gguf_bytes(architecture: Mapping[str, Any], types: Mapping[str, str]) -> int:
    """Bytes of a file whose tensors have these types: header (estimated), tensors and their padding."""
    tensors = sum(_padded(tensor_bytes(t, types[t.name])) for t in weight_tensors(architecture))
    return gguf_header_bytes(architecture) + tensors + _rope_bytes(architecture)


def gguf_header_bytes(architecture: Mapping[str, Any]) -> int:
    """An estimate of the bytes before the tensors: keys, a byte-level BPE vocabulary, names of tensors.

    A token has a length, a text and a type, and a merge has its text once more.
    """
    keys = complete_architecture(architecture)
    vocabulary, kind = keys["vocab_size"], keys["model_type"]
    merges = max(vocabulary - _SINGLE, 0)
    text = int(merges * _merge_text(merges))
    tokens = vocabulary * (8 + 4) + _SINGLE_TEXT + text + merges * (8 + 1) + text
    infos = sum(_INFO + 8 * len(tensor.shape) for tensor in weight_tensors(keys))
    named = _FAMILY_KEYS * (len(FAMILIES[kind].architecture) - _FAMILY) + len(kind) - _FAMILY
    return _padded(_KEYS + named + tokens + infos)


def _merge_text(merges: int) -> float:
    """Bytes of the text of a merged token, on average, of so many: it grows with every doubling.

    Measured on English and code: 2.5 with 21 merges, 3.7 with 253, 4.6 with 1,272; 8.6 in published
    vocabularies of 150,000. No text is known before the tokenizer is trained.
    """
    doublings = log2(max(merges, 1))
    return max(1 + 0.36 * doublings, 0.7 * doublings - 3.4)


def _rope_bytes(architecture: Mapping[str, Any]) -> int:
    """Of `rope_freqs.weight`, which stretches the rotary embedding of Llama 3.1; 0 where there is none."""
    keys = complete_architecture(architecture)
    if gguf_refusal(keys) or rope_parameters(keys)["rope_type"] != "llama3":
        return 0
    return _padded(keys["head_dim"] // 2 * BLOCKS["F32"][1])


def _wanted(tensor: WeightTensor, mix: Mix, *, plain: bool) -> str:
    if tensor.role == "vector":
        return "F32"
    if plain:
        return mix.base
    if tensor.role == "output" or (tensor.role == "embedding" and mix.tied):
        return output_type(mix, fits=tensor.shape[-1] % BLOCKS[mix.base][0] == 0)
    if tensor.role == "embedding":
        return embedding_type(mix)
    _, _, layer, _, part, _ = tensor.name.split(".")
    return matrix_type(mix, part, int(layer))


def _fitting(tensor: WeightTensor, wanted: str, *, fallback: bool) -> str:
    row, block = tensor.shape[-1], BLOCKS[wanted][0]
    if row % block == 0:
        return wanted
    if not fallback:
        raise AnalysisError(
            f"{wanted} stores blocks of {block} weights, and rows of `{tensor.name}` are {row} wide",
            hint="llama.cpp would silently take another type; choose F16, Q8_0 or another width",
        )
    other = _FALLBACKS.get(wanted, "IQ4_NL")
    return other if row % BLOCKS[other][0] == 0 else "F16"


def _padded(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
