"""llama.cpp's mixes: which matrices a file type such as Q4_K_M gives more bits, and how many.

Its quantize program decides by the part of a layer that a matrix is, and by the number of the layer. The
rules are retold from what it does (tools/quantize and `src/llama-quant.cpp` of llama.cpp, 2026), for dense
models of the llama and qwen families. A test holds them to the sizes that llama.cpp publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

FILE_TYPES: Mapping[str, str] = {
    **{name: name for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")},
    "Q2_K": "Q2_K",
    "Q2_K_S": "Q2_K",
    "Q3_K_S": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_L": "Q3_K",
    "Q4_K_S": "Q4_K",
    "Q4_K_M": "Q4_K",
    "Q5_K_S": "Q5_K",
    "Q5_K_M": "Q5_K",
    "Q6_K": "Q6_K",
    "TQ1_0": "TQ1_0",
    "TQ2_0": "TQ2_0",
    "IQ1_S": "IQ1_S",
    "IQ1_M": "IQ1_M",
    "IQ2_XXS": "IQ2_XXS",
    "IQ2_XS": "IQ2_XS",
    "IQ2_S": "IQ2_XS",
    "IQ2_M": "IQ2_S",
    "IQ3_XXS": "IQ3_XXS",
    "IQ3_XS": "IQ3_S",
    "IQ3_S": "IQ3_S",
    "IQ3_M": "IQ3_S",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
}
"""File type -> the type of most matrices."""

_TINY = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
_WIDER_TINY = ("IQ2_S", "IQ2_M")
_SHARED = 4
"""From so many query heads on each head of keys and values, more bits for values cost little."""
_LAYERS_OF_70B = 80


@dataclass(frozen=True, slots=True)
class Mix:
    """A file type and what its choices rest on. layers: how many there are. heads, key_value_heads: of
    attention. imatrix: whether there is an importance matrix. tied: whether the embedding is the output too.
    """

    file_type: str
    layers: int
    heads: int
    key_value_heads: int
    imatrix: bool = False
    tied: bool = False

    @property
    def base(self) -> str:
        """The type of most matrices."""
        return FILE_TYPES[self.file_type]

    @property
    def shares_values(self) -> bool:
        """Whether many query heads share one value matrix."""
        return self.heads // self.key_value_heads >= _SHARED

    def early(self, layer: int) -> bool:
        """Whether a layer is in the first eighth."""
        return layer < self.layers // 8

    def favoured(self, layer: int) -> bool:
        """Whether a layer is in the first or last eighth, or is every third between them."""
        first = self.layers // 8
        return layer < first or layer >= 7 * self.layers // 8 or (layer - first) % 3 == 2


def output_type(mix: Mix, *, fits: bool) -> str:
    """The type of the output matrix, or of the embedding it is tied to. fits: its rows are whole blocks."""
    if not fits or mix.base == "Q8_0":
        return "Q8_0"
    return "Q5_K" if mix.file_type in (*_TINY, "IQ3_XXS") else "Q6_K"


def embedding_type(mix: Mix) -> str:
    """The type of an embedding that is not tied."""
    if mix.file_type in (*_WIDER_TINY, "IQ3_XXS"):
        return "IQ3_S"
    if mix.file_type in _TINY:
        return "Q2_K"
    return "Q4_K" if mix.file_type in ("TQ1_0", "TQ2_0") else mix.base


def matrix_type(mix: Mix, part: str, layer: int) -> str:
    """The type of a layer's matrix. part: its Hugging Face name, `v_proj` or `down_proj`."""
    choose = (_TINY_PARTS if mix.file_type in _TINY else _PARTS).get(part)
    return (choose(mix, layer) if choose else "") or mix.base


def _values(mix: Mix, layer: int) -> str:
    chosen = _values_by_file_type(mix, layer) or mix.base
    # The value matrix of a 70B model is an eighth of the query's: more bits cost next to nothing.
    boosted = mix.layers == _LAYERS_OF_70B and mix.heads != mix.key_value_heads
    return "Q5_K" if boosted and chosen in ("Q3_K", "Q4_K") else chosen


def _values_by_file_type(mix: Mix, layer: int) -> str:
    kind = mix.file_type
    if kind in ("Q4_K_M", "Q5_K_M"):
        return "Q6_K" if mix.favoured(layer) else ""
    if kind in ("Q3_K_M", "Q3_K_L"):
        return "Q5_K" if layer < 2 or kind == "Q3_K_L" else "Q4_K"
    if kind == "Q4_K_S":
        return "Q5_K" if layer < 4 else ""
    if kind == "IQ3_M":
        return "Q4_K"
    if kind in ("IQ4_NL", "IQ4_XS"):
        return "Q5_K" if mix.shares_values else ""
    if kind in ("Q2_K", "Q2_K_S", "IQ3_XXS", "IQ3_XS", "IQ3_S") and mix.shares_values:
        return "Q4_K"
    if kind == "IQ3_XXS":
        return "IQ3_XXS" if mix.imatrix else "IQ3_S"
    return "Q3_K" if kind == "Q2_K" else ""


def _down(mix: Mix, layer: int) -> str:
    kind, early = mix.file_type, mix.early(layer)
    if kind in ("Q4_K_M", "Q5_K_M"):
        return "Q6_K" if mix.favoured(layer) else ""
    if kind == "Q3_K_M":
        return "Q5_K" if layer < mix.layers // 16 else "Q4_K"
    if kind in ("Q2_K", "Q3_K_L"):
        return "Q3_K" if kind == "Q2_K" else "Q5_K"
    if kind == "IQ3_XXS" and not mix.imatrix:
        return "Q4_K" if early else "Q3_K"
    if not early:
        return ""
    if mix.imatrix:
        with_imatrix = {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}.get(kind, "")
    else:
        with_imatrix = {"IQ4_NL": "Q5_K", "IQ4_XS": "Q5_K"}.get(kind, "")
    return with_imatrix or {"Q2_K_S": "Q4_K", "IQ3_M": "Q4_K", "Q4_K_S": "Q5_K"}.get(kind, "")


def _attention_output(mix: Mix, _layer: int) -> str:
    chosen = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
    return chosen.get(mix.file_type, "")


def _query_or_key(mix: Mix, _layer: int) -> str:
    return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(mix.file_type, "")


def _gate_or_up(mix: Mix, layer: int) -> str:
    middle = mix.layers // 8 <= layer < 7 * mix.layers // 8
    return "IQ3_XXS" if mix.file_type == "IQ3_XS" and middle else ""


def _tiny_values(mix: Mix, _layer: int) -> str:
    if mix.shares_values:
        return "Q4_K"
    return "IQ3_S" if mix.file_type in _WIDER_TINY else "Q2_K"


def _tiny_down(mix: Mix, layer: int) -> str:
    if not mix.early(layer):
        return ""
    return "IQ3_S" if mix.file_type in _WIDER_TINY else "Q2_K"


def _tiny_attention_output(mix: Mix, _layer: int) -> str:
    if mix.file_type in _WIDER_TINY:
        return "IQ3_S"
    return "IQ2_XXS" if mix.file_type in ("IQ1_S", "IQ1_M") else ""


_Choice = Callable[[Mix, int], str]
_PARTS: Mapping[str, _Choice] = {
    "q_proj": _query_or_key,
    "k_proj": _query_or_key,
    "v_proj": _values,
    "o_proj": _attention_output,
    "gate_proj": _gate_or_up,
    "up_proj": _gate_or_up,
    "down_proj": _down,
}
_TINY_PARTS: Mapping[str, _Choice] = {
    "v_proj": _tiny_values,
    "o_proj": _tiny_attention_output,
    "down_proj": _tiny_down,
}
"""Part of a layer -> what it gets; empty: what most matrices get. File types below 3 bits have their own."""
