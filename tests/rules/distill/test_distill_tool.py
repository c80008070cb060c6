import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from modelbuild.toolkit import training
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import ARCHITECTURE, TRAINING, call, tree

STUDENT = ARCHITECTURE | {"num_hidden_layers": 1, "hidden_size": 16}
DISTILLATION = TRAINING | {
    "architecture": STUDENT, "alpha": 0.7, "beta": 0.3, "gamma": 0.0, "temperature": 2.0, "examples": 0,
    "match": [], "layer_map": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def logits(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("logits") / "logits"
    params = {"examples": 0, "top_k": 0, "sequence_length": 64}
    inputs = {"teacher": text / "teacher", "dataset": text / "dataset"}
    call("distill/logits_tool.py", params, inputs, {"logits": out})
    return out


def distill(text: Path, logits: Path, out: Path, scratch: Path | None = None, **changed: Any) -> Path:
    inputs = {"dataset": text / "dataset", "tokenizer": text / "tokenizer", "logits": logits}
    if changed.get("gamma"):
        inputs["teacher"] = text / "teacher"
    call("distill/tool.py", DISTILLATION | changed, inputs, {"model": out}, scratch)
    return out


def losses(model: Path) -> list[float]:
    return [point["loss"] for point in json.loads((model / "training.json").read_text())["curve"]]


def test_two_runs_give_the_same_bytes(text: Path, logits: Path, tmp_path: Path) -> None:
    first, second = distill(text, logits, tmp_path / "a"), distill(text, logits, tmp_path / "b")
    assert tree(first) == tree(second)
    assert losses(first)[-1] < losses(first)[0]


def test_only_the_task_term_is_left_without_a_teacher_term(text: Path, logits: Path, tmp_path: Path) -> None:
    hot = distill(text, logits, tmp_path / "hot", alpha=0.0, beta=1.0, temperature=8.0)
    cold = distill(text, logits, tmp_path / "cold", alpha=0.0, beta=1.0, temperature=1.0)
    assert tree(hot) == tree(cold)
    soft = distill(text, logits, tmp_path / "soft", alpha=1.0, beta=0.0)
    assert losses(soft) != losses(hot)


@pytest.mark.parametrize("match", [["hidden"], ["attention"], ["attention", "hidden"]])
def test_matching_adds_a_term_and_leaves_no_projector(
    text: Path, logits: Path, tmp_path: Path, match: list[str]
) -> None:
    plain = distill(text, logits, tmp_path / "plain")
    matched = distill(text, logits, tmp_path / "matched", gamma=1.0, match=match)
    assert losses(matched)[0] > losses(plain)[0]
    weights = load_file(matched / "model.safetensors")
    assert weights.keys() == load_file(plain / "model.safetensors").keys()


def test_a_layer_that_is_not_there_is_refused(text: Path, logits: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="layer 1 of 1 with layer 3 of 2"):
        distill(text, logits, tmp_path / "out", gamma=1.0, match=["hidden"], layer_map=[[1, 3]])


def test_projectors_are_checkpointed_too(
    text: Path, logits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def stop_at_3(step: int, _total: int, **_metrics: Any) -> None:
        if step == 3:
            raise Killed

    matching: dict[str, Any] = {"gamma": 1.0, "match": ["hidden"]}
    whole = distill(text, logits, tmp_path / "whole", **matching)
    monkeypatch.setattr(training, "CHECKPOINT_INTERVAL_S", 0.0)
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", 1.0)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(training, "report", stop_at_3)
        with pytest.raises(Killed):
            distill(text, logits, tmp_path / "lost", scratch, **matching)
    assert (scratch / "checkpoint.safetensors").is_file()
    assert tree(distill(text, logits, tmp_path / "continued", scratch, **matching)) == tree(whole)
