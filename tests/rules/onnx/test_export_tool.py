"""The shared export of a tiny Llama and a tiny vision transformer, in floats and in packed integers."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from modelbuild.rules.onnx import export_tool
from modelbuild.rules.quantize import image_tool as quantize_images
from modelbuild.rules.quantize import tool as quantize_text
from modelbuild.toolkit import onnx_dense
from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.onnx_runtime import OnnxModel
from modelbuild.toolkit.packed_weights import packed_bits, read_dense
from modelbuild.toolkit.request import Request, ToolError

ROOT = Path(__file__).parents[3]
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
    "initializer_range": 0.2,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.2,
    "tie_word_embeddings": True,
}
TEXT = {"task": "language_model", "sequence_length": 48}
IMAGES = {"task": "image_classification"}
INT4 = {"bits": 4, "group_size": 32, "symmetric": True, "observer": "minmax", "embeddings": "rtn"}
INT8 = INT4 | {"bits": 8, "group_size": 0}
MODELS: dict[str, dict[str, Any]] = {"llama": TEXT, "llama-int4": TEXT, "vit": IMAGES, "vit-int8": IMAGES}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with the models, and `<model>.d`, their exports."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    text, images = LanguageModel(), ImageClassification()
    text.save(text.create(LLAMA, None), folder / "llama", None)
    images.save(images.create(VIT, None), folder / "vit", None)
    quantize_text.main(Request(INT4, {"model": folder / "llama"}, {"model": folder / "llama-int4"}))
    quantize_images.main(Request(INT8, {"model": folder / "vit"}, {"model": folder / "vit-int8"}))
    for name, params in MODELS.items():
        export_tool.main(Request(params, {"model": folder / name}, {"onnx": folder / f"{name}.d"}))
    return folder


def initializers(folder: Path) -> dict[str, Any]:
    proto = onnx.load(folder / "model.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("name", MODELS)
def test_every_matrix_keeps_its_name_and_its_numbers(built: Path, name: str) -> None:
    weights = read_dense(built / name, packed_bits(read_config(built / name)))
    stored = initializers(built / f"{name}.d")
    for key, values in weights.items():
        if key.endswith("layer.weight") or values.ndim != 2:
            continue
        # Of an embedding and an output matrix that are equal, the export keeps one.
        found = stored[key if key in stored else "model.embed_tokens.weight"]
        if found.shape != values.shape or not np.array_equal(found, values):
            found = found.T
        np.testing.assert_array_equal(found, values)


def test_the_export_stores_the_weights_and_next_to_nothing_else(built: Path) -> None:
    for name in MODELS:
        weights = read_dense(built / name, packed_bits(read_config(built / name)))
        wanted = sum(values.size * 4 for values in weights.values())
        numbers = sum(array.nbytes for array in initializers(built / f"{name}.d").values())
        # Positions are int64; no mask and no cosine table, which would be 48 x 48 and 48 x 8 floats.
        tied = 40 * 32 * 4 if name == "llama-int4" else 0
        assert abs(numbers - (wanted - tied)) < 48 * 8 + 600, name


def test_the_last_positions_do_not_change_the_first(built: Path) -> None:
    model = OnnxModel(built / "llama.d" / "model.onnx")
    ids = np.arange(48, dtype=np.int64)[None] % 40
    other = ids.copy()
    other[0, 20:] = 7
    first, second = (model.run({"input_ids": each})["logits"][0] for each in (ids, other))
    np.testing.assert_array_equal(first[:20], second[:20])
    assert np.abs(first[20:] - second[20:]).max() > 1e-3


def test_no_path_of_this_machine_is_in_the_file(built: Path) -> None:
    for name in MODELS:
        content = (built / f"{name}.d" / "model.onnx").read_bytes()
        for trace in (str(built).encode(), str(ROOT).encode(), b"site-packages", b".py"):
            assert trace not in content


def test_a_model_too_large_for_one_file_has_its_weights_beside_it(built: Path, tmp_path: Path) -> None:
    model = onnx_dense.CausalLogits(load_dense(built / "llama", "text_generation"), 48)
    example = {"input_ids": torch.arange(48).unsqueeze(0) % 40}
    for name in ("one", "two"):
        onnx_dense.export_dense(model, example, tmp_path / name, limit=1000)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "one/model.onnx").stat().st_size < 20_000
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    reference = LanguageModel().load(built / "llama")
    assert onnx_dense.compare_dense(reference, example, tmp_path / "one") < 1e-4


def test_a_model_that_does_not_fit_its_config_is_refused(built: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.safetensors").symlink_to(built / "llama/model.safetensors")
    config = json.loads((built / "llama/config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ToolError, match=r"the model lacks `model\.layers\.1"):
        load_dense(broken, "text_generation")


@pytest.mark.slow
def test_two_processes_in_two_folders_make_the_same_bytes(built: Path, tmp_path: Path) -> None:
    digests = set()
    for seed in ("1", "2"):
        folder = tmp_path / f"folder-{seed}"
        folder.mkdir()
        (folder / "llama").symlink_to(built / "llama-int4")
        request = {
            "params": TEXT,
            "inputs": {"model": "llama"},
            "outputs": {"onnx": "out"},
            "threads": int(seed),
        }
        (folder / "request.json").write_text(json.dumps(request))
        command = [sys.executable, "-m", "modelbuild.toolkit.request", export_tool.__file__, "request.json"]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=environment, check=True)
        digests.add(hashlib.sha256((folder / "out/model.onnx").read_bytes()).hexdigest())
    digests.add(hashlib.sha256((built / "llama-int4.d/model.onnx").read_bytes()).hexdigest())
    assert len(digests) == 1
