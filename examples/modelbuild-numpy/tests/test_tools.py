"""The tools, each called as an action calls it, on a small random model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelbuild_numpy.layout import CODES, SCALES
from modelbuild_numpy.rule import NumpyToolchain
from modelbuild_numpy.toolchain import FORMATS
from safetensors.numpy import save_file

from modelbuild.api import (
    AnalysisError,
    Artifact,
    Conversion,
    DeviceBinaryInfo,
    ModelInfo,
    PythonTool,
    RuntimeToolchainInfo,
    weight_tensors,
)
from modelbuild.testing import ActionRunner, RuleRunner, run_tool
from modelbuild.toolkit.packed_weights import pack
from modelbuild.toolkit.request import ToolError

TOOLS = Path(__file__).parents[1] / "modelbuild_numpy"
VIT = {
    "model_type": "vit",
    "image_size": 4,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 3,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "intermediate_size": 12,
}
QUANTIZATION = {"scheme": "rtn", "bits": 4, "group_size": 4, "symmetric": True}
_GROUP = {"weights": {"num_bits": 4, "group_size": 4, "symmetric": True}}


def info(**changed: Any) -> ModelInfo:
    return ModelInfo(Artifact("model", "tree"), "image_classification", VIT, **changed)


def write_model(directory: Path, *, is_packed: bool = False) -> Path:
    """A model tree with random weights; with 4-bit codes in groups of 4, or in floats."""
    generator = np.random.default_rng(0)
    config: dict[str, Any] = {**VIT, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    tensors: dict[str, Any] = {}
    for tensor in weight_tensors(VIT):
        if is_packed and tensor.role in ("matrix", "output"):
            rows, columns = tensor.shape
            codes = generator.integers(-8, 8, (rows, columns)).astype(np.int8)
            tensors[f"{tensor.name}_packed"] = pack(codes, 4)
            tensors[f"{tensor.name}_scale"] = generator.random((rows, columns // 4), dtype=np.float32)
            tensors[f"{tensor.name}_shape"] = np.array(tensor.shape)
            config["quantization_config"] = {"config_groups": {"group_0": _GROUP}}
        else:
            tensors[tensor.name] = generator.standard_normal(tensor.shape).astype(np.float32)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "model.safetensors")
    return directory


def convert(tmp_path: Path, model: Path, format_: str) -> Path:
    """Runs what the toolchain declares."""
    runner = RuleRunner()
    toolchain = runner.analyze(NumpyToolchain, name="numpy").get(RuntimeToolchainInfo)
    device = runner.platform("zero", cpu="aarch64", os="linux")
    target = runner.convert(toolchain, Conversion(info(), format_, device))
    made = ActionRunner(tmp_path, {info().weights: model}).run(target)
    return made[target.get(DeviceBinaryInfo).binary]


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("format_", FORMATS)
def test_the_size_is_predicted_to_the_byte(tmp_path: Path, format_: str, is_packed: bool) -> None:
    runner = RuleRunner()
    toolchain = runner.analyze(NumpyToolchain).get(RuntimeToolchainInfo)
    device = runner.platform("zero", cpu="aarch64", os="linux")
    described = info(quantization=QUANTIZATION) if is_packed else info()
    archive = convert(tmp_path, write_model(tmp_path / "model", is_packed=is_packed), format_)
    predicted = toolchain.footprint(Conversion(described, format_, device))
    with np.load(archive) as arrays:
        assert predicted.weights == sum(array.nbytes for array in arrays.values())
    assert predicted.disk == archive.stat().st_size


@pytest.mark.parametrize("format_", FORMATS)
def test_equal_models_give_equal_bytes(tmp_path: Path, format_: str) -> None:
    model = write_model(tmp_path / "model")
    first, second = (convert(tmp_path, model, format_) for _ in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_codes_are_kept_and_never_rounded_again(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", is_packed=True)
    name = "vit.layers.1.mlp.fc2.weight"
    with np.load(convert(tmp_path, model, "npz:int8")) as arrays:
        codes, scales = arrays[name + CODES], arrays[name + SCALES]
    assert codes.dtype == np.int8
    assert (scales.shape, scales.dtype) == ((8, 3), np.float32)
    with np.load(convert(tmp_path, model, "npz:fp32")) as arrays:
        np.testing.assert_array_equal(arrays[name], codes * np.repeat(scales, 4, axis=1))


def test_rounding_is_off_by_half_a_step_at_most(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    with np.load(convert(tmp_path, model, "npz:fp32")) as exact:
        weight = exact["classifier.weight"]
    with np.load(convert(tmp_path, model, "npz:int8")) as arrays:
        codes, scales = arrays["classifier.weight" + CODES], arrays["classifier.weight" + SCALES]
    assert np.abs(codes).max() == 127
    assert (np.abs(codes * scales - weight) <= scales * 0.5001).all()


def test_another_network_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(ToolError, match="`hidden_act` is `relu`"):
        convert(tmp_path, model, "npz:fp32")


def test_a_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = convert(tmp_path, write_model(tmp_path / "model"), "npz:int8")
    picture = tmp_path / "picture.json"
    picture.write_text(json.dumps([[0.0, 0.5, 0.5, 1.0]] * 4))
    run_tool(TOOLS / "device_tool.py", tmp_path, inputs={"binary": archive}, arguments=[str(picture)])
    assert re.fullmatch(r".*picture\.json: [012] \(\d+\.\d%\)\n", capsys.readouterr().out)
    picture.write_text("[1, 2, 3]")
    with pytest.raises(ToolError, match="1 dimensions"):
        run_tool(TOOLS / "device_tool.py", tmp_path, inputs={"binary": archive}, arguments=[str(picture)])
    picture.write_text(json.dumps([[0.0] * 6] * 6))
    with pytest.raises(ToolError, match="for which the model was not made"):
        run_tool(TOOLS / "device_tool.py", tmp_path, inputs={"binary": archive}, arguments=[str(picture)])


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(ToolError, match="no archive of arrays"):
        run_tool(TOOLS / "device_tool.py", tmp_path, inputs={"binary": tmp_path / "x.npz"})


def header(tmp_path: Path) -> tuple[Path, Path]:
    archive = convert(tmp_path, write_model(tmp_path / "model"), "npz:int8")
    tool = PythonTool(TOOLS / "header_tool.py", ("numpy",))
    made = run_tool(tool, tmp_path, inputs={"archive": archive}, outputs=["header"], params={"prefix": "v"})
    return archive, made["header"]


def test_a_header_holds_every_number(tmp_path: Path) -> None:
    archive, made = header(tmp_path)
    text = made.read_text()
    found = {
        name: [float(each.strip().rstrip("f")) for each in numbers.rstrip(",\n ").split(",")]
        for name, numbers in re.findall(r"static const \w+ (\w+)\[\d+\] = \{\n(.*?)\};", text, re.DOTALL)
    }
    with np.load(archive) as arrays:
        weights = {name: each for name, each in arrays.items() if each.ndim}
        assert len(found) == len(weights)
        for name, array in weights.items():
            written = np.array(found["v_" + re.sub(r"[^A-Za-z0-9]", "_", name)], dtype=array.dtype)
            np.testing.assert_array_equal(written, array.ravel())
    assert "#define V_HEADS 2" in text


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_compiler_takes_the_header(tmp_path: Path) -> None:
    archive, made = header(tmp_path)
    program = tmp_path / "main.c"
    name = "v_classifier_weight_codes"
    program.write_text(
        f'#include <stdio.h>\n#include "{made}"\n'
        f"int main(void) {{ return fwrite({name}, 1, sizeof {name}, stdout) != sizeof {name}; }}\n"
    )
    subprocess.run(
        [
            "cc",
            "-std=c99",
            "-Wall",
            "-Werror",
            "-Wno-unused-const-variable",
            "-o",
            tmp_path / "main",
            program,
        ],
        check=True,
    )
    printed = subprocess.run([tmp_path / "main"], check=True, capture_output=True).stdout
    with np.load(archive) as arrays:
        assert printed == arrays["classifier.weight" + CODES].tobytes()


def test_an_undeclared_import_would_be_noticed(tmp_path: Path) -> None:
    tool = PythonTool(TOOLS / "header_tool.py", ("numpy",))
    with pytest.raises(AnalysisError, match="imports `numpy`"):
        run_tool(replace(tool, distributions=()), tmp_path)
