from typing import Any

import pytest

from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.provider import DatasetInfo, ModelInfo, TokenizerInfo
from modelbuild.rules.train.rule import Train
from modelbuild.testing import RuleRunner
from modelbuild.tool import PythonTool

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4}


def runner(task: str = "text_generation") -> RuleRunner:
    made = RuleRunner()
    made.provide(":data", DatasetInfo(Artifact("pkg/data/dataset", "tree"), ("train", "eval"), task))
    made.provide(":no_train", DatasetInfo(Artifact("pkg/no/dataset", "tree"), ("eval",), task))
    made.provide(":tokenizer", TokenizerInfo(Artifact("pkg/tokenizer/tokenizer", "tree"), 512))
    return made


def test_the_action_is_resumable_and_knows_its_threads() -> None:
    target = runner().analyze(
        Train, dataset=":data", tokenizer=":tokenizer", architecture=LLAMA, steps=10, threads=3
    )
    assert target.action.resumable
    assert target.action.threads == 3
    assert target.action.resources.cpu == 3
    assert target.action.params["steps"] == 10
    assert "threads" not in target.action.params


def test_the_model_knows_its_vocabulary() -> None:
    target = runner().analyze(Train, dataset=":data", tokenizer=":tokenizer", architecture=LLAMA, steps=10)
    info = target.get(ModelInfo)
    assert info.architecture["vocab_size"] == 512
    assert info.architecture.items() >= LLAMA.items()
    assert info.tokenizer is not None


def test_what_the_architecture_leaves_to_transformers_is_known_afterwards() -> None:
    target = runner().analyze(Train, dataset=":data", tokenizer=":tokenizer", architecture=LLAMA, steps=10)
    assert target.get(ModelInfo).architecture["intermediate_size"] == 11008
    assert target.get(ModelInfo).architecture["head_dim"] == 16
    assert target.action.params["architecture"] == LLAMA


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": {"hidden_size": 64}}, "names no `model_type`"),
        ({"architecture": LLAMA | {"hidden_size": 66}}, "not a multiple of `num_attention_heads`"),
        ({"architecture": LLAMA | {"num_key_value_heads": 3}}, "not a multiple of `num_key_value_heads`"),
        ({"architecture": LLAMA | {"num_attention_heads": 64}}, "even width"),
        ({"architecture": LLAMA | {"num_hidden_layers": 0}}, "not a positive number"),
        ({"architecture": LLAMA | {"vocab_size": 100}}, "less than the tokenizer's 512"),
        ({"tokenizer": None}, "needs a tokenizer"),
        ({"dataset": ":no_train"}, "no split `train`"),
        ({"warmup": 10}, "leaves nothing of `steps`"),
        ({"steps": 0}, "steps"),
        ({"schedule": "polynomial"}, "schedule"),
        ({"learning_rates": 0.1}, "learning_rate"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_analysis(changed: dict[str, Any], message: str) -> None:
    attributes: dict[str, Any] = {
        "dataset": ":data", "tokenizer": ":tokenizer", "architecture": LLAMA, "steps": 10,
    } | changed  # fmt: skip
    with pytest.raises(ModelbuildError) as caught:
        runner().analyze(Train, **attributes)
    assert message in str(caught.value)


def test_images_need_no_tokenizer() -> None:
    target = runner("image_classification").analyze(
        Train, dataset=":data", architecture={"model_type": "vit"}, steps=1
    )
    assert isinstance(target.action.tool, PythonTool)
    assert target.action.tool.source.name == "image_tool.py"
