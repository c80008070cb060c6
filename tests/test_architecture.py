"""Weights told from config keys are those of transformers' models, and of the models built here."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageClassification

from modelbuild.architecture import (
    MODEL_TYPES,
    attention_window,
    complete_architecture,
    kv_cache_bytes,
    longest_row,
    optional_vectors,
    parameter_count,
    shares_heads,
    weight_tensors,
)
from modelbuild.errors import AnalysisError

LLAMA_3_8B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
QWEN2_5_0_5B: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
TINY: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
}
ARCHITECTURES: list[dict[str, Any]] = [
    *({"model_type": model_type} for model_type in sorted(MODEL_TYPES)),
    LLAMA_3_8B,
    QWEN2_5_0_5B,
    {"model_type": "llama", **TINY, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    {"model_type": "llama", **TINY, "num_key_value_heads": 2, "head_dim": 24},
    {"model_type": "llama", **TINY, "num_key_value_heads": None, "head_dim": None},
    {"model_type": "mistral", **TINY, "num_key_value_heads": 2, "head_dim": 32},
    {"model_type": "qwen3", **TINY, "num_key_value_heads": 1, "attention_bias": True},
    {"model_type": "vit", **TINY, "image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10},
    {"model_type": "vit", **TINY, "image_size": (8, 12), "patch_size": 4, "qkv_bias": False, "num_labels": 3},
]


def stored_shapes(architecture: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """What transformers stores, without making the numbers; a tied output matrix is stored once."""
    config = AutoConfig.for_model(**architecture)
    auto = AutoModelForImageClassification if config.model_type == "vit" else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if getattr(config, "tie_word_embeddings", False):
        state.pop("lm_head.weight", None)
    return state


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_weights_are_those_of_transformers(architecture: dict[str, Any]) -> None:
    told = {tensor.name: tensor.shape for tensor in weight_tensors(architecture)}

    assert list(told.items()) == list(stored_shapes(architecture).items())


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        ({"model_type": "llama"}, 6_738_415_616),  # Llama 2 7B, table 1 of its paper: 6.7B
        (LLAMA_3_8B, 8_030_261_248),  # as its model card's safetensors header counts
        (QWEN2_5_0_5B, 494_032_768),
    ],
    ids=["llama-2-7b", "llama-3-8b", "qwen2.5-0.5b"],
)
def test_published_parameter_counts(architecture: dict[str, Any], parameters: int) -> None:
    assert parameter_count(architecture) == parameters


def test_a_config_json_says_the_number_of_labels_by_their_names() -> None:
    keys = {"model_type": "vit", **TINY, "id2label": {"0": "a", "1": "b", "2": "c"}}

    assert complete_architecture(keys)["num_labels"] == 3


@pytest.mark.parametrize("model_type", sorted(MODEL_TYPES - {"vit"}))
def test_rows_are_as_long_as_transformers_says(model_type: str) -> None:
    assert longest_row({"model_type": model_type}) == AutoConfig.for_model(model_type).max_position_embeddings
    assert longest_row({"model_type": model_type, "max_position_embeddings": 64}) == 64


def test_cache_of_keys_and_values() -> None:
    # 2 (keys, values) x 32 layers x 8 heads x 128 wide x 8192 tokens x 2 bytes.
    assert kv_cache_bytes(LLAMA_3_8B, 8192) == 1 << 30
    assert kv_cache_bytes(LLAMA_3_8B, 8192, bytes_per_element=4) == 1 << 31
    assert kv_cache_bytes({"model_type": "vit"}, 8192) == 0


@pytest.mark.parametrize(
    ("changed", "window"),
    [
        ({"model_type": "mistral", "sliding_window": 6}, 6),
        ({"model_type": "mistral", "sliding_window": None}, 0),
        ({"model_type": "mistral"}, 4096),
        ({"model_type": "qwen2", "sliding_window": 6}, 0),
        ({"model_type": "qwen2", "sliding_window": 6, "use_sliding_window": True}, 0),
        ({"model_type": "qwen2", "sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}, 6),
        (
            {
                "model_type": "qwen3",
                "sliding_window": 6,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            6,
        ),
        ({"model_type": "llama", "sliding_window": 6}, 0),
    ],
    ids=str,
)
def test_how_far_attention_looks_back_is_what_transformers_computes(
    changed: dict[str, Any], window: int
) -> None:
    """A row of that many tokens is computed as if there were no window, a longer one is not."""
    architecture = {**TINY, "vocab_size": 16, "initializer_range": 0.5, "num_key_value_heads": 2, **changed}
    assert attention_window(architecture) == window
    plain = architecture | {"sliding_window": None, "use_sliding_window": False}
    plain.pop("layer_types", None)
    models = []
    for keys in (architecture, plain):
        torch.manual_seed(0)
        models.append(AutoModelForCausalLM.from_config(AutoConfig.for_model(**keys)).eval())
    row = torch.arange(10)[None]
    with torch.inference_mode():
        logits, expected = (model(row).logits for model in models)
    same = [torch.allclose(logits[0, at], expected[0, at], atol=1e-6) for at in range(10)]
    assert same == [not window or at < window for at in range(10)]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({}, "the architecture names no `model_type`"),
        ({"model_type": "gpt2"}, "a model of type `gpt2` are not known"),
        ({"model_type": "llama", "hidden_size": 0}, "`hidden_size` is 0"),
        ({"model_type": "llama", "hidden_size": "64"}, "`hidden_size` is '64'"),
        ({"model_type": "llama", "hidden_size": 100, "num_attention_heads": 3}, "100 is not a multiple of"),
        (
            {"model_type": "llama", "num_key_value_heads": 5},
            "32 is not a multiple of `num_key_value_heads` 5",
        ),
        ({"model_type": "llama", "tie_word_embeddings": 1}, "`tie_word_embeddings` is 1, neither"),
    ],
    ids=str,
)
def test_what_no_model_can_have_is_refused(architecture: dict[str, Any], message: str) -> None:
    with pytest.raises(AnalysisError, match=re.escape(message)):
        weight_tensors(architecture)


def test_what_some_models_of_a_kind_have_is_counted() -> None:
    keys = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    llama, qwen2, qwen3 = ({"model_type": name, **keys} for name in ("llama", "qwen2", "qwen3"))
    assert optional_vectors(llama) == (0, 0)
    assert optional_vectors(llama | {"attention_bias": True, "mlp_bias": True}) == (3 * 7, 0)
    assert optional_vectors(qwen2) == (3 * 3, 0)
    assert optional_vectors(qwen3) == (0, 3 * 2)
    assert shares_heads(llama)
    assert not shares_heads(llama | {"num_key_value_heads": 4})


def test_biases_of_every_classifier_are_no_option() -> None:
    vit = {"model_type": "vit", "num_hidden_layers": 2}
    assert optional_vectors(vit) == (0, 0)
    assert optional_vectors(vit | {"qkv_bias": False}) == (-2 * 3, 0)
    assert not shares_heads(vit)
