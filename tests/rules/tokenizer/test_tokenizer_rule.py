from typing import Any

import pytest

from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.provider import DatasetInfo, TokenizerInfo
from modelbuild.rules.tokenizer.rule import Tokenizer
from modelbuild.testing import RuleRunner


def runner(task: str = "text_generation", splits: tuple[str, ...] = ("train", "eval")) -> RuleRunner:
    made = RuleRunner()
    made.provide(":data", DatasetInfo(Artifact("pkg/data/dataset", "tree"), splits, task))
    return made


def test_a_tokenizer_is_one_action_over_the_dataset() -> None:
    target = runner().analyze(Tokenizer, dataset=":data", vocab_size=600)
    assert target.action.params == {"vocab_size": 600, "task": "text_generation"}
    assert target.get(TokenizerInfo) == TokenizerInfo(target.action.primary_output, 600)


@pytest.mark.parametrize(
    ("data", "vocab_size", "message"),
    [
        (runner("image_classification"), 512, "holds no text"),
        (runner(splits=("eval",)), 512, "has no split `train`"),
        (runner(), 258, "vocab_size"),
    ],
)
def test_what_cannot_be_is_refused(data: Any, vocab_size: int, message: str) -> None:
    with pytest.raises(ModelbuildError, match=message):
        data.analyze(Tokenizer, dataset=":data", vocab_size=vocab_size)
