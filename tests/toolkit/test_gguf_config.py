"""What is refused, and that transformers has no key which nobody thought of."""

from typing import Any

import pytest
from transformers import AutoConfig

from modelbuild.gguf_layout import gguf_context_length, gguf_refusal
from modelbuild.toolkit.attention_window import attention_window
from modelbuild.toolkit.gguf_config import (
    FAMILIES,
    check_keys,
    context_length,
    rope_parameters,
)
from modelbuild.toolkit.request import ToolError

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_key_that_transformers_has_is_written_or_means_nothing(family: str) -> None:
    config = AutoConfig.for_model(family)
    check_keys(config.to_dict())
    assert not gguf_refusal(config.to_dict())
    assert FAMILIES[family].context == config.max_position_embeddings


def test_a_key_that_nobody_thought_of_is_refused() -> None:
    with pytest.raises(ToolError, match="has a key `attn_logit_softcapping`"):
        check_keys({"model_type": "llama", "attn_logit_softcapping": 30.0})
    with pytest.raises(ToolError, match="has a key `mlp_bias`"):
        check_keys({"model_type": "qwen3", "mlp_bias": True})


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"model_type": "gemma2"}, "a model of type `gemma2` is not written"),
        ({}, "a model of type `None`"),
        ({"hidden_act": "gelu"}, "its activation is `gelu`"),
        ({"model_type": "qwen3", "attention_bias": True}, "no biases in the attention of a `qwen3`"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "of type `dynamic`"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "of type `longrope`"),
        ({"rope_scaling": {"type": "linear"}}, "states no `factor`"),
        ({"rope_parameters": YARN | {"beta_fast": 16}}, "no `beta_fast` of a rotary embedding"),
        ({"rope_parameters": YARN | {"truncate": False}}, "no `truncate`"),
        ({"rope_parameters": YARN | {"mscale": 0.7}}, "no `mscale`"),
        ({"rope_parameters": LLAMA3 | {"partial_rotary_factor": 0.5}}, "no `partial_rotary_factor`"),
        ({"rope_parameters": LLAMA3, "model_type": "qwen2"}, "`llama3` for `qwen2`"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(keys: dict[str, Any], reason: str) -> None:
    assert reason in gguf_refusal({"model_type": "llama", **keys} if keys else {})


@pytest.mark.parametrize(
    "keys",
    [
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_scaling": None, "rope_theta": 500000.0},
        {"rope_parameters": LLAMA3 | {"rope_theta": 500000.0}},
        {"rope_parameters": YARN | {"beta_fast": 32.0, "truncate": True, "attention_factor": None}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        {"hidden_act": "swish"},
    ],
)
def test_what_it_computes_alike_is_not(keys: dict[str, Any]) -> None:
    assert not gguf_refusal({"model_type": "llama", **keys})


def test_old_names_of_the_rotary_embedding_are_read_as_transformers_reads_them() -> None:
    old = {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = AutoConfig.for_model(**old).to_dict()
    assert (
        rope_parameters(old)
        == rope_parameters(new)
        == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    )
    assert rope_parameters({"model_type": "llama"})["rope_theta"] == 10000.0


@pytest.mark.parametrize(
    ("keys", "window"),
    [
        ({"model_type": "llama"}, None),
        ({"model_type": "mistral"}, 4096),
        ({"model_type": "mistral", "sliding_window": None}, None),
        ({"model_type": "mistral", "sliding_window": 16}, 16),
        ({"model_type": "qwen2", "sliding_window": 16}, None),
        ({"model_type": "qwen2", "use_sliding_window": True, "num_hidden_layers": 40}, 4096),
        ({"model_type": "qwen2", "use_sliding_window": True, "num_hidden_layers": 4}, None),
        ({"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}, 9),
        (
            {
                "model_type": "qwen3",
                "use_sliding_window": True,
                "num_hidden_layers": 2,
                "layer_types": ["full_attention"] * 2,
            },
            None,
        ),
    ],
)
def test_the_window_is_that_of_transformers(keys: dict[str, Any], window: int | None) -> None:
    full = {"num_hidden_layers": 4, **keys}
    config = AutoConfig.for_model(**full)
    size = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None) or ["sliding_attention"]
    assert (size if "sliding_attention" in layers else None) == window
    assert attention_window(full) == attention_window(config.to_dict()) == (window or 0)


def test_a_file_is_for_no_more_tokens_than_the_window() -> None:
    assert context_length({"model_type": "mistral", "max_position_embeddings": 32768}) == 4096
    assert context_length({"model_type": "mistral", "max_position_embeddings": 512}) == 512
    assert context_length({"model_type": "mistral", "sliding_window": None}) == 131072
    assert gguf_context_length({"model_type": "llama"}) == 2048
