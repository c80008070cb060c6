import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.teacher_logits import TAIL_TEMPERATURES, TeacherLogits
from tests.tiny_text import VOCAB_SIZE, call, tree

EXAMPLES = 10


def make(text: Path, out: Path, top_k: int) -> Path:
    params = {"examples": EXAMPLES, "top_k": top_k, "sequence_length": 64}
    inputs = {"teacher": text / "teacher", "dataset": text / "dataset"}
    call("distill/logits_tool.py", params, inputs, {"logits": out})
    return out


def exact(text: Path, student: torch.Tensor, temperature: float, indices: list[int]) -> torch.Tensor:
    """KL by its definition, from the teacher itself."""
    task = LanguageModel()
    teacher = task.load(text / "teacher")
    examples = task.examples(text / "dataset", "train", text / "teacher", limit=EXAMPLES)
    with torch.no_grad():
        logits = task.forward(teacher, task.batch(examples, indices)).logits
    p = torch.softmax(logits / temperature, dim=-1)
    q = torch.softmax(student / temperature, dim=-1)
    return (p * (p / q).log()).sum(dim=-1).mean()


def stored(text: Path, directory: Path, temperature: float, indices: list[int]) -> tuple[float, float]:
    """The divergence from stored logits, and the exact one, for a random student."""
    examples = LanguageModel().examples(text / "dataset", "train", text / "teacher", limit=EXAMPLES)
    counts = examples.rows
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(sum(counts[i] for i in indices), VOCAB_SIZE, generator=generator)
    logits = TeacherLogits(directory, EXAMPLES)
    kept = logits.divergence(student, indices, counts, temperature)
    return float(kept), float(exact(text, student, temperature, indices))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
def test_all_logits_give_the_exact_divergence_in_any_order(
    text: Path, tmp_path: Path, temperature: float
) -> None:
    kept, true = stored(text, make(text, tmp_path / "logits", VOCAB_SIZE), temperature, [7, 2, 9])
    assert kept == pytest.approx(true, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 20.0])
def test_the_tail_gives_a_close_lower_bound(text: Path, tmp_path: Path, temperature: float) -> None:
    kept, true = stored(text, make(text, tmp_path / "logits", 32), temperature, [7, 2, 9])
    slack = 0.0 if temperature in TAIL_TEMPERATURES else 2e-3
    assert kept <= true + slack + 1e-4
    assert kept > 0


def test_a_student_that_is_its_teacher_has_no_divergence(text: Path, tmp_path: Path) -> None:
    task = LanguageModel()
    examples = task.examples(text / "dataset", "train", text / "teacher", limit=EXAMPLES)
    with torch.no_grad():
        own = task.forward(task.load(text / "teacher"), task.batch(examples, [3, 4])).logits
    for top_k in (8, 0, VOCAB_SIZE):
        logits = TeacherLogits(make(text, tmp_path / f"k{top_k}", top_k), EXAMPLES)
        for temperature in TAIL_TEMPERATURES:
            assert float(logits.divergence(own, [3, 4], examples.rows, temperature)) == pytest.approx(
                0, abs=1e-3
            )


def test_what_is_kept_is_small_and_repeatable(text: Path, tmp_path: Path) -> None:
    first, second = make(text, tmp_path / "a", 0), make(text, tmp_path / "b", 0)
    assert tree(first) == tree(second)
    summary = json.loads((first / "logits.json").read_text())
    assert summary["top_k"] == 32
    with safe_open(first / "logits.safetensors", framework="pt") as file:
        assert file.get_tensor("values").shape == (summary["rows"], 32)
        assert file.get_tensor("values").dtype == torch.float16
        assert file.get_tensor("offsets").tolist()[-1] == summary["rows"]


def test_logits_of_other_examples_are_refused(text: Path, tmp_path: Path) -> None:
    directory = make(text, tmp_path / "logits", 8)
    with pytest.raises(ToolError, match="of 10 examples, the student trains on 24"):
        TeacherLogits(directory, 24)
    logits = TeacherLogits(directory, EXAMPLES)
    with pytest.raises(ToolError, match="another tokenizer or dataset"):
        logits.divergence(torch.zeros(3, VOCAB_SIZE), [0], [3] * EXAMPLES, 1.0)
