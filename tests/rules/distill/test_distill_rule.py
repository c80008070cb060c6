from typing import Any

import pytest

from modelbuild.actions.action import Action
from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.label import Label
from modelbuild.provider import DatasetInfo, LogitsInfo, ModelInfo, TokenizerInfo
from modelbuild.rules.distill.rule import Distill, TeacherLogits
from modelbuild.testing import RuleRunner

LARGE = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4, "vocab_size": 512,
}  # fmt: skip
SMALL = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}


def runner() -> RuleRunner:
    made = RuleRunner()
    made.provide(
        ":data", DatasetInfo(Artifact("pkg/data/dataset", "tree"), ("train", "eval"), "text_generation")
    )
    made.provide(
        ":images", DatasetInfo(Artifact("pkg/i/dataset", "tree"), ("train",), "image_classification")
    )
    tokenizer = TokenizerInfo(Artifact("pkg/tokenizer/tokenizer", "tree"), 512)
    for name in ("teacher", "other"):
        weights = Artifact(f"pkg/{name}/model", "tree")
        made.provide(
            f":{name}", ModelInfo(weights, "text_generation", architecture=LARGE, tokenizer=tokenizer)
        )
    made.provide(":logits_of_other", LogitsInfo(Artifact("pkg/l/logits", "tree"), Label("", "pkg", "other")))
    return made


def distill(made: RuleRunner | None = None, **attributes: Any) -> Any:
    stated: dict[str, Any] = {
        "teacher": ":teacher",
        "dataset": ":data",
        "architecture": SMALL,
        "steps": 10,
    } | attributes
    return (made or runner()).analyze(Distill, **stated)


def identity(action: Action) -> Any:
    return action.tool, action.params, action.inputs, sorted(action.outputs), action.platform, action.threads


def test_students_of_one_teacher_declare_one_and_the_same_logits_action() -> None:
    first = distill(name="first", temperature=2.0)
    second = distill(name="second", temperature=4.0, seed=9, gamma=1.0, architecture=SMALL | {"head_dim": 8})
    assert first.actions[0].mnemonic == "TeacherLogits"
    assert identity(first.actions[0]) == identity(second.actions[0])
    assert first.actions[0].primary_output != second.actions[0].primary_output
    assert identity(first.actions[1]) != identity(second.actions[1])


def test_the_explicit_rule_declares_that_action_too() -> None:
    explicit = runner().analyze(TeacherLogits, teacher=":teacher", dataset=":data")
    assert identity(explicit.action) == identity(distill().actions[0])
    assert identity(explicit.action) != identity(distill(examples=8).actions[0])


def test_given_logits_are_used() -> None:
    made = runner()
    logits = made.analyze(TeacherLogits, name="logits", teacher=":teacher", dataset=":data")
    student = distill(made, logits=":logits")
    assert student.action.inputs["in/logits"] == logits.action.primary_output


def test_the_teacher_itself_is_an_input_only_when_its_inside_counts() -> None:
    assert "in/teacher" not in distill().actions[1].inputs
    matching = distill(gamma=0.5, match=["hidden", "attention"], layer_map={1: 2, 2: 4}).actions[1]
    assert "in/teacher" in matching.inputs
    assert matching.params["layer_map"] == [[1, 2], [2, 4]]


def test_the_student_knows_its_parent_and_tokenizer() -> None:
    info = distill().get(ModelInfo)
    assert info.parent == Label("", "pkg", "teacher")
    assert info.tokenizer is not None
    assert info.architecture["vocab_size"] == 512


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"alpha": 0.0, "beta": 0.0}, "nothing is learnt"),
        ({"gamma": 1.0, "match": []}, "`match` is empty"),
        ({"gamma": 1.0, "match": ["hiden"]}, "match"),
        ({"gamma": 1.0, "match": ["gradient"]}, "match"),
        ({"layer_map": {1: 1}}, "has no effect while `gamma` is 0"),
        ({"gamma": 1.0, "layer_map": {3: 1}}, "names layer 3 of a student that has 1 to 2"),
        ({"gamma": 1.0, "layer_map": {1: 5}}, "names layer 5 of a teacher that has 1 to 4"),
        ({"dataset": ":images"}, "no use for a tokenizer"),
        ({"architecture": SMALL | {"vocab_size": 600}}, "their logits cannot be compared"),
        ({"logits": ":logits_of_other"}, "holds logits of `//pkg:other`"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_what_cannot_be_distilled_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelbuildError) as caught:
        distill(**changed)
    assert message in str(caught.value)
