from pathlib import Path

import pytest
import torch

from modelbuild.toolkit.language_model import LanguageModel, load_vocabulary, read_rows
from modelbuild.toolkit.scoring import complete, score
from tests.tiny_text import train


@pytest.fixture(scope="module")
def learnt(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has some of its training rows by heart, and others not."""
    return train(
        text, tmp_path_factory.mktemp("learnt") / "model", steps=150, batch_size=24, learning_rate=2e-2
    )


def test_exact_is_what_greedy_decoding_gives(text: Path, learnt: Path) -> None:
    task = LanguageModel()
    model = task.load(learnt)
    rows = read_rows(text / "dataset", "train") + read_rows(text / "dataset", "eval")
    answers = complete(model, load_vocabulary(learnt), [row["prompt"] for row in rows], max_new_tokens=40)
    scores = score(model, task.examples(text / "dataset", "train", learnt))
    scores += score(model, task.examples(text / "dataset", "eval", learnt))
    decoded = [answer == row["completion"] for answer, row in zip(answers, rows, strict=True)]
    assert [s.exact for s in scores] == decoded
    assert any(decoded)
    assert not all(decoded)


def test_a_score_does_not_depend_on_the_company(text: Path, learnt: Path) -> None:
    task = LanguageModel()
    model = task.load(learnt)
    examples = task.examples(text / "dataset", "train", learnt)
    together = score(model, examples)
    for index in (0, 5, 17):
        batch = task.batch(examples, [index])
        with torch.no_grad():
            logits = task.forward(model, batch).logits
        alone = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum")
        assert together[index].nll == pytest.approx(float(alone), abs=1e-3)
        assert together[index].tokens == len(batch.targets) == examples.rows[index]


def test_only_the_completion_and_its_end_are_scored(text: Path, learnt: Path) -> None:
    task = LanguageModel()
    examples = task.examples(text / "dataset", "train", learnt, limit=3)
    vocabulary = load_vocabulary(learnt)
    row = read_rows(text / "dataset", "train")[2]
    targets = task.batch(examples, [2]).targets.tolist()
    assert targets == [*vocabulary.encode([row["completion"]])[0], vocabulary.eos]
    assert examples.ids[2][0] == vocabulary.bos
    assert vocabulary.decode(examples.ids[2]) == row["prompt"] + "\n" + row["completion"]
    assert examples.slices == ["even", "odd", "even"]
