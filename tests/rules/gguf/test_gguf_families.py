from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.llama_cpp import LlamaCpp
from tests.tiny_text import ARCHITECTURE, call

WIDE = {**ARCHITECTURE, "hidden_size": 64, "num_attention_heads": 4, "initializer_range": 0.2}


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
    params = {
        "type": "F32",
        "file_type": "F32",
        "embeddings": "auto",
        "allow_requantize": False,
        "licence": "",
    }
    out = tmp_path / "m.gguf"
    call("gguf/tool.py", params, {"model": tmp_path / "m"}, {"model": out, "tensors": tmp_path / "t.json"})
    tokens = [1, *range(20, 50)]
    with LlamaCpp(out, threads=1, sequences=1, length=64) as llama:
        theirs = llama.logits([tokens])[0]
    with torch.inference_mode():
        ours = model(torch.tensor([tokens])).logits[0].numpy()
    assert np.abs(theirs - ours).max() < 1e-4 * np.abs(ours).max()
