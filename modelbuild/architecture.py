"""Architectures: what weights a model has, told from its Hugging Face config keys before anything is built.

Names and shapes are those of transformers' `state_dict()`, which is what this repository's tools store.
Defaults are those of transformers 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from modelbuild.errors import AnalysisError
from modelbuild.toolkit.attention_window import attention_window as of_config
from modelbuild.toolkit.gguf_config import FAMILIES

Role = Literal["embedding", "output", "matrix", "vector"]


@dataclass(frozen=True, slots=True)
class WeightTensor:
    """One stored weight. shape: of a matrix [outputs, inputs], so that a row is what formats cut in blocks.

    role: `embedding` turns inputs into hidden states (a token table [vocabulary, hidden], or the kernel of a
    picture's patches [hidden, channels, height, width]); `output` is the matrix that gives logits; `matrix`
    is that of any other linear layer; `vector` is the rest, which formats keep in floating point: norms,
    biases, and the class token and positions of a vision transformer.
    """

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


_DECODER: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "tie_word_embeddings": False,
}
_QWEN: dict[str, Any] = _DECODER | {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": _DECODER | {"attention_bias": False, "mlp_bias": False},
    "mistral": _DECODER | {"intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128, "attention_bias": False},
    "vit": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
        "num_channels": 3,
        "num_labels": 2,
        "qkv_bias": True,
    },
}
"""Model type -> the keys that decide shapes, and what transformers takes where one is left out."""

MODEL_TYPES = frozenset(_DEFAULTS)
"""The model types whose weights are known here."""


def complete_architecture(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with every key that decides a shape filled in; a key that is None counts as left out.

    Raises AnalysisError for a missing or unknown `model_type`, and for a size that no model can have.
    """
    defaults = _DEFAULTS[_model_type(architecture)]
    keys = dict(architecture)
    for name, default in defaults.items():
        if keys.get(name) is None:
            keys[name] = default
    if "num_labels" in defaults and architecture.get("num_labels") is None and architecture.get("id2label"):
        keys["num_labels"] = len(architecture["id2label"])
    for name, default in defaults.items():
        if name not in ("num_key_value_heads", "head_dim") or keys[name] is not None:
            _check(name, keys[name], default)
    hidden, heads = keys["hidden_size"], keys["num_attention_heads"]
    if keys.get("head_dim") is None and hidden % heads:
        raise AnalysisError(f"`hidden_size` {hidden} is not a multiple of `num_attention_heads` {heads}")
    if "head_dim" in defaults:
        keys["head_dim"] = keys["head_dim"] or hidden // heads
        keys["num_key_value_heads"] = keys["num_key_value_heads"] or heads
        if heads % keys["num_key_value_heads"]:
            raise AnalysisError(
                f"`num_attention_heads` {heads} is not a multiple of"
                f" `num_key_value_heads` {keys['num_key_value_heads']}"
            )
    return keys


def weight_tensors(architecture: Mapping[str, Any]) -> tuple[WeightTensor, ...]:
    """Every weight, in the order of `state_dict()`; an output matrix tied to the embedding is left out.

    Raises AnalysisError as `complete_architecture` does.
    """
    keys = complete_architecture(architecture)
    return tuple(_vit(keys) if keys["model_type"] == "vit" else _decoder(keys))


def optional_vectors(architecture: Mapping[str, Any]) -> tuple[int, int]:
    """How many biases of linear layers, and norms of queries or keys, not every model of its kind has.

    Four biases of each layer of a classifier are in every one. What a converter writes around such a vector
    takes bytes that a figure for each layer does not cover.
    """
    keys = complete_architecture(architecture)
    names = [tensor.name for tensor in weight_tensors(keys)]
    usual = 4 * int(keys["num_hidden_layers"]) if keys["model_type"] == "vit" else 0
    biases = sum(name.endswith("_proj.bias") for name in names) - usual
    return biases, sum(name.endswith(("q_norm.weight", "k_norm.weight")) for name in names)


def shares_heads(architecture: Mapping[str, Any]) -> bool:
    """Whether several heads of queries share one of keys and values, as no classifier here has it."""
    keys = complete_architecture(architecture)
    return bool(keys.get("num_key_value_heads", keys["num_attention_heads"]) != keys["num_attention_heads"])


def parameter_count(architecture: Mapping[str, Any]) -> int:
    """How many numbers the weights hold; a tied output matrix counts once."""
    return sum(tensor.parameters for tensor in weight_tensors(architecture))


def kv_cache_bytes(architecture: Mapping[str, Any], context_length: int, bytes_per_element: int = 2) -> int:
    """Bytes of the keys and values of `context_length` tokens, one sequence; 0 for a classifier.

    A sliding window is not taken off: runtimes that know none hold every token.
    """
    keys = complete_architecture(architecture)
    if "num_key_value_heads" not in _DEFAULTS[keys["model_type"]]:
        return 0
    width = keys["num_key_value_heads"] * keys["head_dim"]
    return int(2 * keys["num_hidden_layers"] * width * context_length * bytes_per_element)


def attention_window(architecture: Mapping[str, Any]) -> int:
    """Tokens that a token attends to, its own included, in the layers that look back least; 0: all."""
    return of_config(complete_architecture(architecture))


def longest_row(architecture: Mapping[str, Any]) -> int:
    """Tokens that a language model's positions were made for, `max_position_embeddings`."""
    stated = architecture.get("max_position_embeddings")
    return int(stated or FAMILIES[complete_architecture(architecture)["model_type"]].context)


def _model_type(architecture: Mapping[str, Any]) -> str:
    known = f"known are {', '.join(f'`{name}`' for name in sorted(_DEFAULTS))}"
    model_type = architecture.get("model_type")
    if not isinstance(model_type, str):
        raise AnalysisError("the architecture names no `model_type`", hint=known)
    if model_type not in _DEFAULTS:
        raise AnalysisError(
            f"the weights of a model of type `{model_type}` are not known before it is built", hint=known
        )
    return model_type


def _check(name: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise AnalysisError(f"`{name}` is {value!r}, neither true nor false")
        return
    for number in value if isinstance(value, (list, tuple)) else (value,):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise AnalysisError(f"`{name}` is {value!r}, not a positive number")


def _decoder(keys: Mapping[str, Any]) -> Iterator[WeightTensor]:
    hidden, inner = keys["hidden_size"], keys["intermediate_size"]
    query = keys["num_attention_heads"] * keys["head_dim"]
    key_value = keys["num_key_value_heads"] * keys["head_dim"]
    kind = keys["model_type"]
    biased = kind == "qwen2" or bool(keys.get("attention_bias"))
    yield WeightTensor("model.embed_tokens.weight", (keys["vocab_size"], hidden), "embedding")
    for layer in range(keys["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        attention = f"{prefix}.self_attn"
        yield from _linear(f"{attention}.q_proj", query, hidden, bias=biased)
        yield from _linear(f"{attention}.k_proj", key_value, hidden, bias=biased)
        yield from _linear(f"{attention}.v_proj", key_value, hidden, bias=biased)
        yield from _linear(f"{attention}.o_proj", hidden, query, bias=biased and kind != "qwen2")
        if kind == "qwen3":
            yield WeightTensor(f"{attention}.q_norm.weight", (keys["head_dim"],), "vector")
            yield WeightTensor(f"{attention}.k_norm.weight", (keys["head_dim"],), "vector")
        wide = kind == "llama" and bool(keys["mlp_bias"])
        yield from _linear(f"{prefix}.mlp.gate_proj", inner, hidden, bias=wide)
        yield from _linear(f"{prefix}.mlp.up_proj", inner, hidden, bias=wide)
        yield from _linear(f"{prefix}.mlp.down_proj", hidden, inner, bias=wide)
        yield WeightTensor(f"{prefix}.input_layernorm.weight", (hidden,), "vector")
        yield WeightTensor(f"{prefix}.post_attention_layernorm.weight", (hidden,), "vector")
    yield WeightTensor("model.norm.weight", (hidden,), "vector")
    if not keys["tie_word_embeddings"]:
        yield WeightTensor("lm_head.weight", (keys["vocab_size"], hidden), "output")


def _vit(keys: Mapping[str, Any]) -> Iterator[WeightTensor]:
    hidden, inner = keys["hidden_size"], keys["intermediate_size"]
    image, patch = _pair(keys["image_size"]), _pair(keys["patch_size"])
    patches = (image[0] // patch[0]) * (image[1] // patch[1])
    kernel = "vit.embeddings.patch_embeddings.projection"
    yield WeightTensor("vit.embeddings.cls_token", (1, 1, hidden), "vector")
    yield WeightTensor("vit.embeddings.position_embeddings", (1, patches + 1, hidden), "vector")
    yield WeightTensor(f"{kernel}.weight", (hidden, keys["num_channels"], *patch), "embedding")
    yield WeightTensor(f"{kernel}.bias", (hidden,), "vector")
    for layer in range(keys["num_hidden_layers"]):
        prefix = f"vit.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj"):
            yield from _linear(f"{prefix}.attention.{part}", hidden, hidden, bias=keys["qkv_bias"])
        yield from _linear(f"{prefix}.attention.o_proj", hidden, hidden, bias=True)
        yield from _norm(f"{prefix}.layernorm_before", hidden)
        yield from _norm(f"{prefix}.layernorm_after", hidden)
        yield from _linear(f"{prefix}.mlp.fc1", inner, hidden, bias=True)
        yield from _linear(f"{prefix}.mlp.fc2", hidden, inner, bias=True)
    yield from _norm("vit.layernorm", hidden)
    yield WeightTensor("classifier.weight", (keys["num_labels"], hidden), "output")
    yield WeightTensor("classifier.bias", (keys["num_labels"],), "vector")


def _linear(name: str, outputs: int, inputs: int, *, bias: bool) -> Iterator[WeightTensor]:
    yield WeightTensor(f"{name}.weight", (outputs, inputs), "matrix")
    if bias:
        yield WeightTensor(f"{name}.bias", (outputs,), "vector")


def _norm(name: str, width: int) -> Iterator[WeightTensor]:
    yield WeightTensor(f"{name}.weight", (width,), "vector")
    yield WeightTensor(f"{name}.bias", (width,), "vector")


def _pair(size: Any) -> tuple[int, int]:
    """Height and width of a square, or the two numbers that are given."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
