"""A model as converters to fixed shapes like it: one input, one output, no mask to compute. Imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.models.llama.modeling_llama import repeat_kv

from modelbuild.toolkit.fixed_shape import CausalText, FixedImage, example_row

_HIDDEN = -30000.0
"""Added to the scores of tokens to come: nothing is left of them, and halves can hold it."""


@dataclass(frozen=True)
class StaticModel:
    """module: takes `example` and gives logits. input_name: `input_ids` or `pixel_values`.

    Text: int64 (1, tokens) to (1, tokens, vocabulary). Images: float32 (1, channels, height, width) to
    (1, labels). classes: the vocabulary, or the labels.
    """

    module: torch.nn.Module
    example: torch.Tensor
    input_name: str
    classes: int


def static_model(
    model: torch.nn.Module, task: str, sequence_length: int, *, grouped_attention: bool = True
) -> StaticModel:
    """Wrap a dense model of transformers. task: `image_classification`, anything else is text.

    grouped_attention: whether the converter knows attention whose heads share keys; else keys are repeated.

    An output matrix that is tied to the embedding becomes a copy of it: converters that find one tensor in
    two places make mistakes. The module shares all other weights with `model`.
    """
    AttentionInterface.register("static", partial(_attention, grouped=grouped_attention))
    model.set_attn_implementation("static")  # type: ignore[operator]
    if task == "image_classification":
        labels = int(model.config.num_labels)  # type: ignore[union-attr,arg-type]
        return StaticModel(FixedImage(model).eval(), example_row(model, 0), "pixel_values", labels)
    output = model.get_output_embeddings()  # type: ignore[operator]
    output.weight = torch.nn.Parameter(output.weight.detach().clone())
    ids = example_row(model, sequence_length)
    return StaticModel(_LanguageModel(model, sequence_length).eval(), ids, "input_ids", len(output.weight))


def _attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    *,
    grouped: bool,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Those of transformers make a mask of booleans where none is needed. query: (1, heads, tokens, size)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and not grouped:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    found = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=grouped
    )
    return found.transpose(1, 2).contiguous(), None


class _LanguageModel(CausalText):
    """The mask is a constant, which every converter follows."""

    def __init__(self, model: torch.nn.Module, length: int) -> None:
        super().__init__(model, length)
        self.mask: torch.Tensor
        self.register_buffer("mask", torch.triu(torch.full((length, length), _HIDDEN), 1)[None, None])

    def causal_mask(self) -> torch.Tensor:
        return self.mask
