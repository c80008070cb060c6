"""The declaration of calibration rows, and the tool that makes them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelbuild.actions.action import Action
from modelbuild.analysis.context import Context
from modelbuild.api import AnalysisError, Artifact, DatasetInfo, Label, ModelInfo, declare_calibration
from modelbuild.rules.device import calibration_tool
from modelbuild.toolkit.language_model import load_vocabulary
from modelbuild.toolkit.request import Request, ToolError
from tests.tiny_text import write_dataset, write_tokenizer

MODEL = ModelInfo(Artifact("m/model", "tree"), "text_generation", {"model_type": "llama"})
DATA = DatasetInfo(Artifact("m/data", "tree"), ("train", "calibration", "eval"), "text_generation")


def declared(name: str, model: ModelInfo = MODEL, data: DatasetInfo | None = DATA, **given: Any) -> Action:
    ctx = Context(Label("", "m", name))
    declare_calibration(ctx, model, data, "x:int8", **given)
    (action,) = ctx.actions
    return action


def test_two_targets_share_the_rows() -> None:
    one, two = (declared(name, prefix=f"{name}/") for name in ("one", "two"))
    assert (one.tool, one.params, one.inputs) == (two.tool, two.params, two.inputs)
    assert one.params != declared("two", sequence_length=32).params


def test_images_need_no_model() -> None:
    images = declared(
        "one", replace(MODEL, task="image_classification"), replace(DATA, task="image_classification")
    )
    assert set(images.inputs.values()) == {DATA.directory}
    assert dict(images.params) == {"rows": 128}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "`//m:one`: `x:int8` measures activations and needs data"),
        (replace(DATA, splits=("eval",)), "a split `calibration`, which the dataset does not have"),
        (replace(DATA, task="language_modeling"), "the calibration data is for `language_modeling`"),
    ],
)
def test_wrong_data_is_refused(data: Any, reason: str) -> None:
    with pytest.raises(AnalysisError, match=reason):
        declared("one", data=data)


def test_rows_are_the_calibration_split_one_text_after_another(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    write_tokenizer(tmp_path / "data", tmp_path / "model")
    inputs = {"dataset": tmp_path / "data", "model": tmp_path / "model"}
    calibration_tool.main(
        Request({"rows": 5, "sequence_length": 20}, inputs, {"rows": tmp_path / "rows.npy"})
    )
    rows = np.load(tmp_path / "rows.npy")
    assert (rows.shape, rows.dtype) == ((5, 20), np.int64)
    first = json.loads((tmp_path / "data/calibration.jsonl").read_text().splitlines()[0])
    vocabulary = load_vocabulary(tmp_path / "model")
    prompt = vocabulary.prompts([first["prompt"]])[0]
    completion = vocabulary.encode([first["completion"]])[0]
    start = [*prompt, *completion, vocabulary.eos, vocabulary.bos]
    assert rows.ravel()[: len(start)].tolist() == start
    with pytest.raises(ToolError, match="tokens, less than one row of 100000"):
        calibration_tool.main(
            Request({"rows": 5, "sequence_length": 100_000}, inputs, {"rows": tmp_path / "x.npy"})
        )
