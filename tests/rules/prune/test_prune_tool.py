import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.pruning import structured
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call, train, tree

PARAMS = {
    "method": "structured",
    "ratio": {"mlp": 0.5},
    "importance": "magnitude",
    "multiple": 8,
    "samples": 8,
    "sequence_length": 64,
    "recovery_steps": 0,
    "seed": 0,
    "learning_rate": 1e-3,
    "batch_size": 4,
}


def prune(text: Path, out: Path, **changed: Any) -> Path:
    inputs = {"model": text / "teacher", "dataset": text / "dataset"}
    call("prune/tool.py", {**PARAMS, **changed}, inputs, {"model": out})
    return out


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation"])
def test_the_result_is_a_smaller_model_that_loads(text: Path, tmp_path: Path, importance: str) -> None:
    ratio = {"mlp": 0.5, "heads": 0.5, "layers": 0.5}
    out = prune(text, tmp_path / "p", ratio=ratio, importance=importance)
    config = json.loads((out / "config.json").read_text())
    assert config["intermediate_size"] == 16
    assert config["num_attention_heads"] == config["num_key_value_heads"] == 1
    assert config["head_dim"] == 16
    assert config["num_hidden_layers"] == 1
    model = LanguageModel().load(out)
    with torch.inference_mode():
        assert torch.isfinite(model(torch.arange(9)[None], use_cache=True).logits).all()
    assert load_file(out / "model.safetensors")["model.layers.0.self_attn.o_proj.weight"].shape == (32, 16)


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "activation"])
def test_what_does_nothing_goes_first(text: Path, importance: str) -> None:
    task = LanguageModel()
    model = task.load(text / "teacher")
    dead = {0: [1, 4, 5, 9, 12, 20, 30, 31], 1: [0, 2, 3, 8, 16, 17, 18, 25]}
    with torch.no_grad():
        for index, channels in dead.items():
            weights = {
                n: p for n, p in model.named_parameters() if n.startswith(f"model.layers.{index}.mlp.")
            }
            for name, weight in weights.items():
                weight[(slice(None), channels) if "down_proj" in name else channels] = 0
    examples = task.examples(text / "dataset", "train", text / "teacher", limit=8)
    batches = [task.batch(examples, range(8))]
    tokens = torch.arange(9)[None]
    with torch.inference_mode():
        before = model(tokens).logits
    params = {**PARAMS, "ratio": {"mlp": 0.25}, "importance": importance}
    pruned = structured(task, model, params, batches)
    assert pruned.config.intermediate_size == 24  # type: ignore[union-attr]
    with torch.inference_mode():
        assert torch.allclose(pruned(tokens).logits, before, atol=1e-5)


def test_recovery_lowers_the_divergence_and_reruns_are_equal(text: Path, tmp_path: Path) -> None:
    changed = {"ratio": {"layers": 0.5}, "recovery_steps": 20, "learning_rate": 3e-3}
    inputs = {"model": train(text, tmp_path / "parent", steps=60), "dataset": text / "dataset"}
    for name in ("1", "2"):
        call("prune/tool.py", {**PARAMS, **changed}, inputs, {"model": tmp_path / name})
    curve = json.loads((tmp_path / "1/training.json").read_text())["curve"]
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_zeros_stay_zeros_through_recovery(text: Path, tmp_path: Path, method: str) -> None:
    out = prune(text, tmp_path / "p", method=method, sparsity=0.5, recovery_steps=2)
    for name, weight in load_file(out / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            assert int((weight == 0).sum()) == weight.numel() // 2, name
            if method == "wanda":
                assert ((weight == 0).sum(1) == weight.shape[1] // 2).all()


def test_a_vision_transformer_loses_channels_and_layers() -> None:
    task = ImageClassification()
    keys = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10, "num_hidden_layers": 2}
    vit = {"model_type": "vit", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, **keys}
    params = {**PARAMS, "ratio": {"mlp": 0.5, "layers": 0.5}}
    pruned = structured(task, task.create(vit, None), params, [])
    assert pruned.get_submodule("vit.layers.0.mlp.fc1").weight.shape == (32, 32)
    assert pruned(torch.zeros(1, 1, 8, 8)).logits.shape == (1, 10)
    with pytest.raises(ToolError, match="heads of a `vit` cannot be pruned"):
        structured(task, task.create(vit, None), {**params, "ratio": {"heads": 0.5}}, [])
