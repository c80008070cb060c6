from typing import Any

import pytest

from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.provider import DatasetInfo, ModelInfo
from modelbuild.rules.prune.rule import Prune, _kept
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.pruning import kept

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "tie_word_embeddings": True,
}
VIT = {"model_type": "vit", "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 128}


def runner(**changed: Any) -> RuleRunner:
    made = RuleRunner()
    tree = Artifact("pkg/m/model", "tree")
    model: dict[str, Any] = {"weights": tree, "task": "text_generation", "architecture": LLAMA, **changed}
    made.provide(":model", ModelInfo(**model))
    made.provide(":data", DatasetInfo(Artifact("pkg/d/dataset", "tree"), ("train",), "text_generation"))
    made.provide(
        ":images", DatasetInfo(Artifact("pkg/i/dataset", "tree"), ("train",), "image_classification")
    )
    made.provide(":eval", DatasetInfo(Artifact("pkg/e/dataset", "tree"), ("eval",), "text_generation"))
    return made


def test_the_new_architecture_is_known_before_anything_runs() -> None:
    target = runner().analyze(Prune, model=":model", ratio={"mlp": 0.45, "heads": 0.5, "layers": 0.25})
    info = target.get(ModelInfo)
    assert info.architecture == {
        **LLAMA,
        "intermediate_size": 288,  # 281.6, rounded up to a multiple of 32
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "num_hidden_layers": 3,
        "attention_bias": False,
        "mlp_bias": False,
    }
    assert str(info.parent).endswith(":model")
    assert "dataset" not in target.action.inputs


def test_a_width_that_is_left_to_transformers_is_pruned_too() -> None:
    target = runner(architecture={"model_type": "llama"}).analyze(Prune, model=":model", ratio={"mlp": 0.5})
    assert target.get(ModelInfo).architecture["intermediate_size"] == 5504  # half of 11008


def test_heads_of_a_model_without_a_width_of_heads_are_refused() -> None:
    made = runner(architecture=VIT, task="image_classification")
    with pytest.raises(ModelbuildError, match="heads of a `vit` cannot be pruned"):
        made.analyze(Prune, model=":model", ratio={"heads": 0.5})


def test_only_what_counts_is_in_the_key() -> None:
    one = runner().analyze(Prune, model=":model", ratio={"mlp": 0.5}, learning_rate=0.1, sparsity=0.3)
    two = runner().analyze(Prune, model=":model", ratio={"mlp": 0.5})
    assert one.action.params == two.action.params
    assert not one.action.resumable


def test_recovery_can_be_resumed() -> None:
    target = runner().analyze(Prune, model=":model", ratio={"mlp": 0.5}, dataset=":data", recovery_steps=3)
    assert target.action.resumable
    assert target.action.params["learning_rate"] == 1e-3


@pytest.mark.parametrize("count", [1, 31, 32, 100, 512, 768])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("multiple", [1, 8, 32])
def test_rule_and_tool_agree_on_what_stays(count: int, ratio: float, multiple: int) -> None:
    assert _kept(count, ratio, multiple) == kept(count, ratio, multiple)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratio": {}}, "removes nothing"),
        ({"ratio": {"mlp": 0.0}}, "removes nothing"),
        ({"ratio": {"mlp": 0.01}}, "`ratio` of `mlp` removes nothing of 512"),
        ({"ratio": {"mlp": 1.0}}, "at least 0 and less than 1"),
        ({"ratio": {"layers": -0.5}}, "at least 0 and less than 1"),
        ({"ratio": {"heads": 0.25}}, "3 heads would be left"),
        ({"ratio": {"mlp": 0.5}, "importance": "taylor"}, "need data"),
        ({"ratio": {"mlp": 0.5}, "recovery_steps": 5}, "need data"),
        ({"ratio": {"mlp": 0.5}, "recovery_steps": 5, "dataset": ":eval"}, "no split `train`"),
        ({"ratio": {"mlp": 0.5}, "recovery_steps": 5, "dataset": ":images"}, "is for `image_classification`"),
        ({"method": "wanda"}, "need data"),
        ({"method": "magnitude", "ratio": {"mlp": 0.5}}, "takes `sparsity`"),
    ],
)
def test_what_cannot_be_pruned_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelbuildError, match=message):
        runner().analyze(Prune, model=":model", **changed)


def test_a_quantized_model_is_refused() -> None:
    with pytest.raises(ModelbuildError, match="prune first"):
        runner(quantization={"bits": 4}).analyze(Prune, model=":model", ratio={"mlp": 0.5})
