import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from modelbuild.toolkit.evaluation import answer_metrics, first_of_each, is_json, rate
from modelbuild.toolkit.language_model import LanguageModel, load_vocabulary
from modelbuild.toolkit.text_evaluation import TorchWriter
from tests.tiny_text import call, rows

PARAMS = {"split": "eval", "limit": 0, "sequence_length": 64, "format": "safetensors:float32"}


def evaluate(text: Path, subject: Path, out: Path, tool: str = "tool", **inputs: Path) -> dict[str, Any]:
    inputs = {"subject": subject, "dataset": text / "dataset", **inputs}
    call(f"evaluate/{tool}.py", PARAMS, inputs, {"metrics": out})
    data = json.loads(out.read_text())
    assert isinstance(data, dict)
    return data


def test_numbers_are_those_of_a_plain_loop(text: Path, tmp_path: Path) -> None:
    slices = evaluate(text, text / "teacher", tmp_path / "m.json")["slices"]
    model, vocabulary = LanguageModel().load(text / "teacher"), load_vocabulary(text / "teacher")
    nll = tokens = size = 0.0
    for row in rows(8, 60):
        prompt = vocabulary.prompts([row["prompt"]])[0]
        ids = vocabulary.encode([row["completion"]])[0] + [vocabulary.eos]
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        nll -= sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))
        tokens += len(ids)
        size += len(row["completion"].encode())
    every = slices["all"]
    assert every["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-4)
    assert every["bits_per_byte"] == pytest.approx(nll / math.log(2) / size, rel=1e-4)
    assert every["count"] == slices["odd"]["count"] + slices["even"]["count"] == 8
    assert "kl_divergence" not in every


def test_a_model_is_its_own_equal(text: Path, tmp_path: Path) -> None:
    made = evaluate(text, text / "teacher", tmp_path / "m.json", parent=text / "teacher")["slices"]["all"]
    assert made["kl_divergence"] == 0
    assert made["top1_agreement"] == 1


def test_padding_does_not_change_answers(text: Path) -> None:
    vocabulary = load_vocabulary(text / "teacher")
    writer = TorchWriter(LanguageModel(), LanguageModel().load(text / "teacher"), vocabulary)
    prompts = vocabulary.prompts([row["prompt"] for row in rows(8, 60)])
    assert writer.answers(prompts, 12) == [writer.answers([prompt], 12)[0] for prompt in prompts]


def test_llama_cpp_measures_what_torch_measures(text: Path, tmp_path: Path) -> None:
    params = {
        "type": "F32",
        "file_type": "F32",
        "embeddings": "auto",
        "allow_requantize": False,
        "licence": "",
    }
    file = tmp_path / "m.gguf"
    outputs = {"model": file, "tensors": tmp_path / "t.json"}
    call("gguf/tool.py", params, {"model": text / "teacher"}, outputs)
    theirs = evaluate(text, file, tmp_path / "a.json", "gguf_tool", parent=text / "teacher")["slices"]
    ours = evaluate(text, text / "teacher", tmp_path / "b.json", parent=text / "teacher")["slices"]
    assert theirs["all"].pop("kl_divergence") < 1e-9
    ours["all"].pop("kl_divergence")
    assert theirs["all"] == pytest.approx(ours["all"], rel=1e-5)


def test_wilson_interval_against_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263 gives .2553 to .3662, 0 of 20 gives 0 to .1611.
    made = rate("r", 81, 263)
    assert (made["r_low"], made["r_high"]) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    made = rate("r", 0, 20)
    assert (made["r_low"], made["r_high"]) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_json_rate_only_where_json_is_expected() -> None:
    assert "valid_json" not in answer_metrics(["a"], ["b"])
    made = answer_metrics(["[1]", "[1", "[NaN]"], ["[1]", "[2]", "[3]"])
    assert made["valid_json"] == pytest.approx(1 / 3)
    assert made["exact_match"] == pytest.approx(1 / 3)
    assert not is_json("3")


def test_a_limit_takes_the_first_of_each_slice() -> None:
    assert first_of_each(["a", "a", "b", "a", "b", "b"], 2) == [0, 1, 2, 4]
    assert first_of_each(["a", "b"], 0) == [0, 1]
