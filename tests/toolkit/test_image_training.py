"""The entry files for images: train, teacher logits, distill, on a tiny vision transformer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelbuild.rules.distill import image_logits_tool
from modelbuild.rules.distill import image_tool as distill_tool
from modelbuild.rules.train import image_tool as train_tool
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.request import Request

TINY = {
    "model_type": "vit",
    "image_size": 4,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 2,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "initializer_range": 0.2,
}
TRAINING: dict[str, Any] = {
    "architecture": TINY,
    "steps": 40,
    "batch_size": 8,
    "learning_rate": 0.01,
    "seed": 3,
    "sequence_length": 512,
}
DISTILLING = TRAINING | {
    "temperature": 2.0,
    "alpha": 0.7,
    "beta": 0.3,
    "gamma": 0.0,
    "match": [],
    "layer_map": [],
    "examples": 0,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose left or right half is the brighter one."""
    folder = tmp_path_factory.mktemp("halves")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 64), ("eval", 32)):
        rows = []
        for number in range(count):
            image = torch.rand(4, 4, generator=generator) * 0.5
            image[:, (number % 2) * 2 : (number % 2) * 2 + 2] += 0.5
            rows.append(json.dumps({"pixels": image.tolist(), "label": number % 2}))
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def train(dataset: Path, model: Path) -> Path:
    train_tool.main(Request(TRAINING, {"dataset": dataset}, {"model": model}))
    return model


def accuracy(dataset: Path, model: Path) -> float:
    task = ImageClassification()
    examples = task.examples(dataset, "eval", None)
    batch = task.batch(examples, range(len(examples.labels)))
    with torch.no_grad():
        answers = task.forward(task.load(model), batch).logits.argmax(-1)
    return float((answers == batch.targets).float().mean())


def test_training_learns_and_its_bytes_depend_on_the_seed_only(dataset: Path, tmp_path: Path) -> None:
    first, second = train(dataset, tmp_path / "first"), train(dataset, tmp_path / "second")
    assert accuracy(dataset, first) == 1.0
    names = sorted(path.name for path in first.iterdir())
    assert names == ["config.json", "model.safetensors", "training.json"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_student_learns_from_the_logits_of_its_teacher(dataset: Path, tmp_path: Path) -> None:
    teacher = train(dataset, tmp_path / "teacher")
    params = {"examples": 0, "top_k": 0, "sequence_length": 512}
    inputs = {"teacher": teacher, "dataset": dataset}
    image_logits_tool.main(Request(params, inputs, {"logits": tmp_path / "logits"}))
    inputs = {"dataset": dataset, "logits": tmp_path / "logits"}
    distill_tool.main(Request(DISTILLING, inputs, {"model": tmp_path / "student"}))
    assert accuracy(dataset, tmp_path / "student") == 1.0
