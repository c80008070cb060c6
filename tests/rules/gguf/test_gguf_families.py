import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelbuild.gguf_layout import gguf_bytes, gguf_header_bytes, tensor_types
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.llama_cpp import LlamaCpp
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import ARCHITECTURE, call

WIDE = {**ARCHITECTURE, "hidden_size": 64, "num_attention_heads": 4, "initializer_range": 0.2}

THETA = 500.0
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": THETA}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "rope_theta": THETA,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": THETA, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"num_key_value_heads": 2},
        {"num_key_value_heads": 1, "head_dim": 32},
        {"tie_word_embeddings": False},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {"model_type": "qwen2", "num_key_value_heads": 2},
        {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16},
        {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None},
        {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 40},
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 2, "head_dim": 32},
        {"rms_norm_eps": 1e-2, "max_position_embeddings": 64, "hidden_act": "swish"},
        {"rope_parameters": LINEAR},
        {"rope_parameters": LINEAR, "model_type": "qwen2", "num_key_value_heads": 2},
        {"rope_parameters": LLAMA3},
        {
            "rope_parameters": LLAMA3,
            "model_type": "mistral",
            "num_key_value_heads": 2,
            "sliding_window": None,
        },
        {"rope_parameters": YARN, "max_position_embeddings": 64},
        {"rope_parameters": YARN | {"attention_factor": 1.0}, "max_position_embeddings": 64},
        {"rope_parameters": YARN, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16},
    ],
)
def test_llama_cpp_computes_what_torch_computes(text: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    torch.manual_seed(0)
    task = LanguageModel()
    model = task.create({**WIDE, **changed}, text / "tokenizer").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                parameter.uniform_(0.5, 1.5)
    task.save(model, tmp_path / "m", text / "tokenizer")
    out = write(tmp_path / "m", tmp_path / "m.gguf")
    tokens = [1, *range(20, 55)]
    with LlamaCpp(out, threads=1, sequences=1, length=64) as llama:
        theirs = llama.logits([tokens])[0]
    with torch.inference_mode():
        ours = model(torch.tensor([tokens])).logits[0].numpy()
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()


def write(model: Path, out: Path) -> Path:
    params = {
        "type": "F32",
        "file_type": "F32",
        "embeddings": "auto",
        "allow_requantize": False,
        "licence": "",
    }
    call("gguf/tool.py", params, {"model": model}, {"model": out, "tensors": out.with_suffix(".json")})
    return out


def save(text: Path, out: Path, **changed: Any) -> Path:
    torch.manual_seed(0)
    task = LanguageModel()
    keys = {**WIDE, "num_key_value_heads": 2, **changed}
    task.save(task.create(keys, text / "tokenizer"), out, text / "tokenizer")
    return out


def test_a_file_ends_where_a_sliding_window_would_begin_to_matter(text: Path, tmp_path: Path) -> None:
    """llama.cpp lets these families see everything; up to the window that is right, and beyond it is not."""
    model = save(text, tmp_path / "m", model_type="mistral", sliding_window=24)
    with LlamaCpp(write(model, tmp_path / "m.gguf"), threads=1, sequences=1) as llama:
        assert llama.length == 24


def test_what_llama_cpp_would_compute_otherwise_is_not_written(text: Path, tmp_path: Path) -> None:
    model = save(text, tmp_path / "gelu", hidden_act="gelu")
    with pytest.raises(ToolError, match="activation is `gelu`"):
        write(model, tmp_path / "m.gguf")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"hidden_act": "silu", "logit_scale": 2.0}))
    with pytest.raises(ToolError, match="has a key `logit_scale`"):
        write(model, tmp_path / "m.gguf")


@pytest.mark.parametrize("rope", [LLAMA3, YARN])
def test_the_predicted_size_counts_what_the_rotary_embedding_takes(
    text: Path, tmp_path: Path, rope: dict[str, Any]
) -> None:
    model = save(text, tmp_path / "m", rope_parameters=rope)
    made = write(model, tmp_path / "m.gguf")
    keys = json.loads((model / "config.json").read_text())
    tensors = json.loads((tmp_path / "m.json").read_text())["tensors"]
    told = gguf_bytes(keys, tensor_types(keys, "F32")) - gguf_header_bytes(keys)
    assert told == sum(-(-row["bytes"] // 32) * 32 for row in tensors)
    assert abs(gguf_bytes(keys, tensor_types(keys, "F32")) / made.stat().st_size - 1) < 0.01
