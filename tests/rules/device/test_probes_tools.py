"""Probes and reference logits of tiny models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modelbuild.toolkit.device_run import read_probes
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel, load_vocabulary
from modelbuild.toolkit.probes import IGNORED, choose, read_targets
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call, rows, train, tree, write_dataset, write_tokenizer

PARAMS = {"split": "eval", "rows": 6, "length": 48}
VIT = {
    "model_type": "vit",
    "image_size": 4,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 3,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
}


def make_probes(text: Path, out: Path, **changed: Any) -> dict[str, Any]:
    inputs = {"dataset": text / "dataset", "tokenizer": text / "tokenizer"}
    call("device/probes_tool.py", {**PARAMS, **changed}, inputs, {"probes": out})
    meta = json.loads((out / "probes.json").read_text())
    assert isinstance(meta, dict)
    return meta


def test_every_slice_is_asked_alike() -> None:
    slices = ["a"] * 10 + ["b"] * 3 + ["c"]
    assert choose(slices, 6) == [0, 3, 6, 10, 11, 13]
    assert choose(slices, 100) == list(range(14))
    assert choose(slices, 1) == [0]
    assert choose([], 3) == []


def test_a_completion_counts_and_its_prompt_does_not(text: Path, tmp_path: Path) -> None:
    meta = make_probes(text, tmp_path / "probes")
    inputs, targets = read_probes(tmp_path / "probes"), read_targets(tmp_path / "probes")
    assert inputs.shape == targets.shape == (6, 48)
    assert inputs.dtype == targets.dtype == np.int64
    assert sorted(meta["slices"]) == ["even"] * 3 + ["odd"] * 3
    vocabulary = load_vocabulary(text / "tokenizer")
    expected = {row["completion"] for row in rows(8, 60)}
    for ids, following in zip(inputs, targets, strict=True):
        at = np.flatnonzero(following != IGNORED)
        assert (np.diff(at) == 1).all()
        assert (ids[at + 1] == following[at]).all()
        assert following[at[-1]] == vocabulary.eos
        assert vocabulary.decode(following[at].tolist()) in expected
        assert (ids[at[-1] + 2 :] == vocabulary.pad).all()
    assert meta["positions"] == (targets != IGNORED).sum()


def test_rows_that_do_not_fit_are_left_out_and_counted(text: Path, tmp_path: Path) -> None:
    lengths = sorted(
        len(prompt) + len(completion) + 1
        for row in rows(8, 60)
        for prompt in load_vocabulary(text / "tokenizer").prompts([row["prompt"]])
        for completion in load_vocabulary(text / "tokenizer").encode([row["completion"]])
    )
    limit = lengths[3]
    fitting = sum(each <= limit for each in lengths)
    meta = make_probes(text, tmp_path / "some", length=limit, rows=32)
    assert (meta["rows"], meta["left_out"]) == (fitting, 8 - fitting)
    with pytest.raises(ToolError, match="no row that fits"):
        make_probes(text, tmp_path / "none", length=4)


def test_of_a_plain_text_everything_counts(text: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", "language_modeling")
    inputs = {"dataset": tmp_path / "dataset", "tokenizer": text / "tokenizer"}
    call("device/probes_tool.py", {**PARAMS, "length": 16}, inputs, {"probes": tmp_path / "probes"})
    targets = read_targets(tmp_path / "probes")
    ids = read_probes(tmp_path / "probes")
    assert (targets[:, 0] == ids[:, 1]).all()
    assert (targets[:, -1] == IGNORED).all()


def test_probes_are_the_same_bytes_each_time(text: Path, tmp_path: Path) -> None:
    make_probes(text, tmp_path / "one")
    make_probes(text, tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_the_reference_is_the_model_alone_on_each_row(text: Path, tmp_path: Path) -> None:
    make_probes(text, tmp_path / "probes")
    inputs = {"model": text / "teacher", "probes": tmp_path / "probes"}
    call("device/reference_tool.py", {}, inputs, {"logits": tmp_path / "logits"})
    logits = np.load(tmp_path / "logits")
    model, ids = LanguageModel().load(text / "teacher"), read_probes(tmp_path / "probes")
    targets = read_targets(tmp_path / "probes")
    assert logits.shape == (6, 48, 280)
    assert logits.dtype == np.float32
    for row, following in enumerate(targets):
        end = int(np.flatnonzero(following != IGNORED)[-1]) + 1
        with torch.inference_mode():
            alone = model(torch.from_numpy(ids[row : row + 1, :end])).logits[0].numpy()
        np.testing.assert_allclose(logits[row, :end], alone, atol=1e-5)


def test_another_tokenizer_is_told(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    write_dataset(folder / "dataset")
    with (folder / "dataset/train.jsonl").open("a") as stream:
        row = {"prompt": "zebra quilt zebra quilt", "completion": "vexing zebra", "slice": "odd"}
        stream.write((json.dumps(row) + "\n") * 9)
    write_tokenizer(folder / "dataset", folder / "tokenizer")
    train(folder, folder / "model")
    make_probes(text, tmp_path / "probes")
    inputs = {"model": folder / "model", "probes": tmp_path / "probes"}
    with pytest.raises(ToolError, match="another tokenizer"):
        call("device/reference_tool.py", {}, inputs, {"logits": tmp_path / "logits"})


def test_images(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(4, 4, generator=generator).tolist() for _ in range(9)]
    made = [{"pixels": each, "label": n % 3, "slice": "all"} for n, each in enumerate(images)]
    (tmp_path / "data/eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    task = ImageClassification()
    torch.manual_seed(0)
    task.save(task.create(VIT, None), tmp_path / "model", None)
    outputs = {"probes": tmp_path / "probes"}
    call("device/image_probes_tool.py", {"split": "eval", "rows": 3}, {"dataset": tmp_path / "data"}, outputs)
    pixels = read_probes(tmp_path / "probes")
    assert pixels.shape == (3, 1, 4, 4)
    np.testing.assert_allclose(pixels[1, 0], images[3], rtol=1e-6)
    assert read_targets(tmp_path / "probes").tolist() == [0, 0, 0]
    inputs = {"model": tmp_path / "model", "probes": tmp_path / "probes"}
    call("device/image_reference_tool.py", {}, inputs, {"logits": tmp_path / "logits"})
    with torch.inference_mode():
        expected = task.load(tmp_path / "model")(torch.from_numpy(pixels)).logits.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits"), expected, atol=1e-6)
