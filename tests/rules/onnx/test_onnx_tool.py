"""The export, run and evaluation tools on a tiny vision transformer, with 8-bit weights and without."""

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

from modelbuild.rules.evaluate import image_tool, onnx_tool
from modelbuild.rules.onnx import run_tool, tool
from modelbuild.rules.quantize import image_tool as quantize_tool
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import Request, ToolError

ROOT = Path(__file__).parents[3]
TINY = {
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
ROUNDING = {"bits": 8, "group_size": 0, "symmetric": True, "observer": "minmax", "embeddings": "keep"}
EXPORT = {"opset": 18, "dynamic_batch": True}
EVALUATE = {"split": "eval", "limit": 0, "format": "onnx"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with `float`, `int8`, their `.onnx` files and `data`."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    task = ImageClassification()
    task.save(task.create(TINY, None), folder / "float", None)
    quantize_tool.main(Request(ROUNDING, {"model": folder / "float"}, {"model": folder / "int8"}))
    for name in ("float", "int8"):
        tool.main(Request(EXPORT, {"model": folder / name}, {"onnx": folder / f"{name}.onnx"}))
    (folder / "data").mkdir()
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(4, 4, generator=generator).tolist() for _ in range(30)]
    rows = [{"pixels": image, "label": n % 3, "slice": "all"} for n, image in enumerate(images)]
    (folder / "data/eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_codes_of_the_checkpoint_are_the_codes_of_the_file(built: Path) -> None:
    model = built / "int8"
    packed, _ = split_packed(read_tensors(model), packed_bits(read_config(model)))
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(built / "int8.onnx").graph.initializer
    }
    assert len(packed) == 7  # q, k, v, o, two of the MLP, the classifier
    for name, weight in packed.items():
        codes = stored[f"model.{name.removesuffix('.weight')}.codes"]
        assert codes.dtype == np.int8
        assert codes.tobytes() == weight.codes.tobytes()
        scales = stored[f"model.{name.removesuffix('.weight')}.scale"]
        assert scales.tobytes() == weight.scales[:, 0].tobytes()
    weights_in_float = [
        name for name in stored if stored[name].dtype == np.float32 and stored[name].ndim == 2
    ]
    assert weights_in_float == []


def test_no_path_of_this_machine_is_in_the_file(built: Path) -> None:
    for name in ("float.onnx", "int8.onnx"):
        content = (built / name).read_bytes()
        for trace in (str(built).encode(), str(ROOT).encode(), b"site-packages", b".py"):
            assert trace not in content


def metrics(built: Path, module: Any, subject: str, parent: str) -> Any:
    inputs = {"subject": built / subject, "dataset": built / "data", "parent": built / parent}
    module.main(Request(EVALUATE, inputs, {"metrics": built / "metrics.json"}))
    return json.loads((built / "metrics.json").read_text())["slices"]["all"]


def test_onnx_runtime_and_torch_are_judged_alike(built: Path) -> None:
    in_torch = metrics(built, image_tool, "int8", "float")
    in_onnx = metrics(built, onnx_tool, "int8.onnx", "float")
    assert in_onnx["count"] == 30
    assert in_onnx["accuracy"] == in_torch["accuracy"]
    assert in_onnx["nll"] == pytest.approx(in_torch["nll"], rel=1e-5)
    assert in_onnx["kl_divergence"] == pytest.approx(in_torch["kl_divergence"], rel=1e-2)
    assert in_onnx["kl_divergence"] > 1e-9  # int8 is not float: something was rounded
    assert metrics(built, onnx_tool, "int8.onnx", "int8")["kl_divergence"] < 1e-9


def test_a_fixed_batch_takes_one_image_and_is_scored_so(built: Path) -> None:
    params = EXPORT | {"dynamic_batch": False}
    tool.main(Request(params, {"model": built / "int8"}, {"onnx": built / "one.onnx"}))
    one = metrics(built, onnx_tool, "one.onnx", "int8")
    assert one["accuracy"] == metrics(built, onnx_tool, "int8.onnx", "int8")["accuracy"]


def run(built: Path, *arguments: Any) -> Any:
    inputs = {"onnx": built / "int8.onnx", "dataset": built / "data"}
    run_tool.main(Request({}, inputs, {}, arguments=arguments))


def test_run_names_what_an_image_shows(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(built, "4")
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5
    assert shown[-1].startswith(("0 (", "1 (", "2 ("))
    assert shown[-1].endswith("; a person says 1)")
    image = json.loads((built / "data/eval.jsonl").read_text().splitlines()[4])["pixels"]
    file = built / "image.txt"
    file.write_text("\n".join(", ".join(str(value) for value in row) for row in image))
    run(built, str(file))
    assert capsys.readouterr().out.splitlines()[:4] == shown[:4]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (None, "which image"),
        ("30", "30 evaluation images"),
        ("/no/such/file", "cannot be read: No such file"),
        ("short.txt", "holds 2 numbers, not 1x4x4"),
        ("words.txt", "no number"),
        ("bright.txt", "from 0 to 1"),
    ],
)
def test_run_says_what_is_wrong_with_an_argument(built: Path, argument: str | None, message: str) -> None:
    (built / "short.txt").write_text("0 1")
    (built / "words.txt").write_text("zero one")
    (built / "bright.txt").write_text("16 " * 16)
    arguments = [] if argument is None else [str(built / argument) if ".txt" in argument else argument]
    with pytest.raises(ToolError, match=message):
        run(built, *arguments)


@pytest.mark.slow
def test_two_processes_in_two_folders_make_the_same_bytes(built: Path, tmp_path: Path) -> None:
    digests = set()
    for seed in ("1", "2"):
        folder = tmp_path / f"folder-{seed}"
        folder.mkdir()
        (folder / "int8").symlink_to(built / "int8")
        request = {
            "params": EXPORT,
            "inputs": {"model": "int8"},
            "outputs": {"onnx": "m.onnx"},
            "threads": int(seed),
        }
        (folder / "request.json").write_text(json.dumps(request))
        command = [sys.executable, "-m", "modelbuild.toolkit.request", tool.__file__, "request.json"]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=environment, check=True)
        digests.add(hashlib.sha256((folder / "m.onnx").read_bytes()).hexdigest())
    digests.add(hashlib.sha256((built / "int8.onnx").read_bytes()).hexdigest())
    assert len(digests) == 1
