"""What of a `config.json` llama.cpp computes as transformers does, and what not. Standard library only.

A key that changes the arithmetic and is not written into the file gives a model that answers, and answers
something else. So every key is either written, or known to mean nothing for inference, or an error. Analysis
asks the same questions of an architecture as the tool asks of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelbuild.toolkit.attention_window import attention_window
from modelbuild.toolkit.config_keys import HARMLESS, WINDOW
from modelbuild.toolkit.request import ToolError


@dataclass(frozen=True)
class Family:
    """How one Hugging Face `model_type` is written. permuted: whether llama.cpp wants the rows of q and k in
    the order of its interleaved rotary embedding. context: tokens, where the configuration does not say.
    keys: those that not every family has.
    """

    architecture: str
    permuted: bool
    context: int
    keys: frozenset[str]


FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", True, 2048, frozenset({"attention_bias", "mlp_bias"})),
    "mistral": Family("llama", True, 131072, frozenset({"sliding_window"})),
    "qwen2": Family("qwen2", False, 32768, WINDOW),
    "qwen3": Family("qwen3", False, 32768, WINDOW | {"attention_bias"}),
}
"""`model_type` -> how it is written. Defaults are transformers'."""

_WRITTEN = frozenset(
    {
        *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
        *(
            "hidden_act",
            "rms_norm_eps",
            "rope_parameters",
            "rope_scaling",
            "rope_theta",
            "tie_word_embeddings",
        ),
        *("bos_token_id", "eos_token_id", "pad_token_id", "quantization_config"),
    }
)
_ACTIVATIONS = ("silu", "swish")
_ROPE: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "default": (frozenset(), frozenset()),
    "linear": (frozenset({"factor"}), frozenset()),
    "llama3": (
        frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
        frozenset(),
    ),
    "yarn": (frozenset({"factor", "original_max_position_embeddings"}), frozenset({"attention_factor"})),
}
"""Kind of rotary embedding -> the parameters it needs, and those that it may have."""
_NO_OTHER: Mapping[str, object] = {
    "partial_rotary_factor": 1.0,
    "truncate": True,
    "beta_fast": 32,
    "beta_slow": 1,
}
"""Parameters that llama.cpp has no key for, and the one value that means nothing."""


def find_family(config: Mapping[str, Any]) -> Family:
    """The family of a configuration. Raises ToolError for one that is not written."""
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise ToolError(
            f"a model of type `{config.get('model_type')}` is not written as GGUF",
            f"known are {', '.join(sorted(FAMILIES))}",
        )
    return family


def check_arithmetic(config: Mapping[str, Any]) -> None:
    """Raise ToolError when llama.cpp would compute something else than transformers."""
    find_family(config)
    rope_parameters(config)
    activation = config.get("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise ToolError(f"its activation is `{activation}`, and llama.cpp computes silu")
    if config["model_type"] == "qwen3" and config.get("attention_bias"):
        raise ToolError("llama.cpp has no biases in the attention of a `qwen3` model")


def check_keys(config: Mapping[str, Any]) -> None:
    """Raise ToolError for a key of `config.json` that is neither written nor known to mean nothing."""
    unknown = sorted(set(config) - _WRITTEN - HARMLESS - find_family(config).keys)
    if unknown:
        raise ToolError(
            f"`config.json` has a key `{unknown[0]}`, and llama.cpp would not know of it",
            "remove it, if it does not change what the model computes",
        )


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the rotary embedding, `rope_type` and `rope_theta` among them, as transformers names
    them now or named them before.

    Raises ToolError for a kind that llama.cpp lacks, and for a parameter that it would not know of.
    """
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = {key: value for key, value in stated.items() if value is not None and key != "type"}
    kind = found["rope_type"] = str(found.get("rope_type") or stated.get("type") or "default")
    found.setdefault("rope_theta", config.get("rope_theta") or 10000.0)
    if kind not in _ROPE:
        raise ToolError(
            f"its rotary embedding is of type `{kind}`, which is not written", f"known are {', '.join(_ROPE)}"
        )
    needed, possible = _ROPE[kind]
    for key in sorted(set(found) - needed - possible - {"rope_type", "rope_theta"}):
        # Some of these mean nothing to the plain embedding, whose own parameters transformers ignores.
        if kind != "default" and (key not in _NO_OTHER or found[key] != _NO_OTHER[key]):
            raise ToolError(f"llama.cpp knows no `{key}` of a rotary embedding of type `{kind}`")
        del found[key]
    missing = sorted(needed - set(found))
    if missing:
        raise ToolError(f"its rotary embedding is of type `{kind}` and states no `{missing[0]}`")
    if kind == "llama3" and find_family(config).architecture != "llama":
        raise ToolError(f"llama.cpp knows no rotary embedding of type `llama3` for `{config['model_type']}`")
    return found


def context_length(config: Mapping[str, Any]) -> int:
    """Tokens up to which llama.cpp computes what transformers does.

    llama.cpp has no sliding window for these families: a token there sees all before it. Up to the length of
    the window that is the same.
    """
    longest = int(config.get("max_position_embeddings") or find_family(config).context)
    return min(longest, attention_window(config) or longest)
