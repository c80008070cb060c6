import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from modelbuild.toolkit.request import ToolError
from tests.tiny_text import ARCHITECTURE, TRAINING, train, tree, write_dataset, write_tokenizer


def test_the_tree_loads_and_tells_its_course(text: Path) -> None:
    teacher = text / "teacher"
    model = AutoModelForCausalLM.from_pretrained(teacher)
    assert model.config.vocab_size == 280
    assert model.config.eos_token_id == 2
    assert model.dtype == torch.float32
    course = json.loads((teacher / "training.json").read_text())
    assert course["steps"] == 6
    assert course["curve"][-1]["loss"] < course["curve"][0]["loss"]
    assert course["parameters"] == model.num_parameters()
    assert (teacher / "tokenizer.json").read_bytes() == (text / "tokenizer/tokenizer.json").read_bytes()
    assert (teacher / "modelbuild.json").is_file()


def test_two_runs_give_the_same_bytes_and_another_seed_others(text: Path, tmp_path: Path) -> None:
    again = train(text, tmp_path / "again")
    assert tree(again) == tree(text / "teacher")
    other = train(text, tmp_path / "other", seed=6)
    assert tree(other)["model.safetensors"] != tree(again)["model.safetensors"]


def test_texts_are_cut_into_pieces(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "dataset", "language_modeling")
    write_tokenizer(dataset, tmp_path / "tokenizer", "language_modeling")
    model = train(tmp_path, tmp_path / "model", steps=3, sequence_length=16)
    assert json.loads((model / "training.json").read_text())["tokens"] <= 3 * 4 * 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": ARCHITECTURE | {"hidden_sizes": 3}}, "`hidden_sizes` is not a key of `llama`"),
        ({"architecture": ARCHITECTURE | {"model_type": "lama"}}, "no model type `lama`"),
        ({"sequence_length": 8}, "more than 8"),
        ({"learning_rate": 1e30, "max_grad_norm": 0.0}, "the loss is"),
    ],
)
def test_what_goes_wrong_is_said(text: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = TRAINING | {"schedule": "constant"} | changed
    with pytest.raises(ToolError, match=message):
        train(text, tmp_path / "model", **settings)
