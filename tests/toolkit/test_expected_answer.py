import numpy as np
import pytest

from modelbuild.toolkit.expected_answer import ExpectedAnswer
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.request import ToolError
from tests.toolchains.workshop import LLAMA, VIT


@pytest.fixture(scope="module")
def answers() -> tuple[ExpectedAnswer, ExpectedAnswer]:
    """Of a language model, and of a classifier of pictures that are no squares."""
    llama = LanguageModel().create(LLAMA | {"num_hidden_layers": 1}, None)
    vit = ImageClassification().create(VIT | {"num_hidden_layers": 1, "image_size": [8, 4]}, None)
    return ExpectedAnswer(llama.eval(), 5), ExpectedAnswer(vit.eval(), 0)


def test_rows_are_what_the_model_takes(answers: tuple[ExpectedAnswer, ExpectedAnswer]) -> None:
    text, image = answers
    assert (text.row.shape, str(text.row.dtype), text.logits.shape) == ((1, 5), "int64", (1, 5, 280))
    assert (image.row.shape, str(image.row.dtype), image.logits.shape) == ((1, 1, 8, 4), "float32", (1, 10))


def test_what_is_near_passes_and_what_is_not_fails(answers: tuple[ExpectedAnswer, ExpectedAnswer]) -> None:
    text, _ = answers
    step = np.zeros_like(text.logits)
    step[0, 2, 7] = np.abs(text.logits).max()
    text.check(text.logits + step * 0.9e-4, "mine")
    with pytest.raises(ToolError, match=r"mine and the model differ by 0\.0001") as caught:
        text.check(text.logits + step * 1.1e-4, "mine")
    assert caught.value.hint == "the converter does not follow this model; another runtime may"
    text.check(text.logits + step * 0.4, "mine", 0.5)
    with pytest.raises(ToolError, match="differ by nan"):
        text.check(text.logits * np.nan, "mine")
    with pytest.raises(ToolError, match=r"logits of shape \(1, 4, 280\), the model \(1, 5, 280\)"):
        text.check(text.logits[:, 1:], "mine")
