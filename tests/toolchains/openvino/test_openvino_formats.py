"""Every format of small models: made, run in OpenVINO, compared with torch, sized, made again."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from safetensors.numpy import load_file, save_file

from modelbuild.api import Conversion, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.rounding import round_groups, round_rows
from tests.tiny_text import tree
from tests.toolchains.workshop import (
    HERE,
    LENGTH,
    LLAMA,
    VIT,
    BuiltModel,
    Workshop,
    largest_error,
    random_model,
    rounded_model,
    size,
    top1_agreement,
)
from toolchains.openvino.rule import OpenvinoToolchain

pytestmark = pytest.mark.slow
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "llama": (LLAMA, None),
    "untied": (LLAMA | {"tie_word_embeddings": False, "num_key_value_heads": 4}, None),
    "biased": (LLAMA | {"model_type": "qwen2"}, None),
    "normed": (LLAMA | {"model_type": "qwen3", "head_dim": 32}, None),
    "vit": (VIT, None),
    "llama-int4": (LLAMA, {"bits": 4}),
    "llama-int2": (LLAMA, {"bits": 2, "symmetric": False, "embeddings": "float"}),
    "llama-int8": (LLAMA, {"bits": 8, "group_size": 0}),
    "vit-int4": (VIT, {"bits": 4, "group_size": 8}),
}
MADE = [
    *[("llama", variant) for variant in ("fp32", "int8", "int4")],
    ("untied", "int4"),
    ("biased", "int4"),
    ("normed", "fp32"),
    ("vit", "fp32"),
    ("vit", "int4"),
    ("llama-int4", "fp32"),
    ("llama-int4", "int4"),
    ("llama-int2", "int4"),
    ("llama-int8", "int8"),
    ("vit-int4", "int4"),
]


def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(OpenvinoToolchain).get(RuntimeToolchainInfo)


@dataclass
class Models:
    """The models of CASES, each made when it is first asked for."""

    folder: Path
    _made: dict[str, BuiltModel] = field(default_factory=dict)

    def __getitem__(self, name: str) -> BuiltModel:
        if name not in self._made:
            architecture, grid = CASES[name]
            model = random_model(self.folder / f"{name}-float", architecture)
            self._made[name] = rounded_model(model, self.folder / name, **grid) if grid else model
        return self._made[name]

    def expected(self, name: str, variant: str) -> Any:
        """The logits of torch; of floats that the format rounds, with matrices that are rounded alike."""
        model = self[name]
        if variant == "fp32" or model.info.quantization:
            return model.answers()
        path = self.folder / f"{name}-{variant}-rounded"
        shutil.copytree(model.path, path)
        tensors = load_file(path / "model.safetensors")
        for key, values in tensors.items():
            if values.ndim == 2:
                group = 16 if values.shape[1] % 32 else 32
                weight = round_groups(values, 4, group) if variant == "int4" else round_rows(values)
                tensors[key] = weight.dequantized()
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return BuiltModel(path, model.info).answers()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


def binary(shop: Workshop, model: BuiltModel, variant: str) -> Path:
    return shop.make(toolchain(), model, f"openvino:{variant}")


@pytest.mark.parametrize(("name", "variant"), MADE)
def test_openvino_answers_as_torch(shop: Workshop, models: Models, name: str, variant: str) -> None:
    model = models[name]
    answer, expected = (
        shop.ask(toolchain(), binary(shop, model, variant), model.rows()),
        models.expected(name, variant),
    )
    assert largest_error(answer, expected) <= 1e-5
    assert top1_agreement(answer, expected) == 1


@pytest.mark.parametrize(("name", "variant"), MADE)
def test_sizes_are_what_was_told_before(shop: Workshop, models: Models, name: str, variant: str) -> None:
    model = models[name]
    told = toolchain().footprint(Conversion(model.info, f"openvino:{variant}", HERE, sequence_length=LENGTH))
    assert told.disk == pytest.approx(size(binary(shop, model, variant)), rel=0.01)


@pytest.mark.parametrize(
    ("architecture", "length", "variant"),
    [
        # Nothing but numbers of few digits, and a mask and a class token that the export computes ahead.
        (
            VIT | {"hidden_size": 16, "num_attention_heads": 1, "image_size": 6, "num_labels": 3},
            LENGTH,
            "fp32",
        ),
        (VIT | {"hidden_size": 120, "image_size": 32, "num_labels": 101, "qkv_bias": False}, LENGTH, "int8"),
        (
            LLAMA | {"model_type": "qwen3", "head_dim": 10, "hidden_size": 40, "num_key_value_heads": 4},
            8,
            "int8",
        ),
    ],
    ids=["narrow", "wide", "short"],
)
def test_numbers_are_counted_as_they_are_written(
    shop: Workshop, tmp_path: Path, architecture: dict[str, Any], length: int, variant: str
) -> None:
    model = random_model(tmp_path / "model", architecture)
    asked = Conversion(model.info, f"openvino:{variant}", HERE, sequence_length=length)
    made = shop.make(toolchain(), model, asked.format, length=length)
    assert toolchain().footprint(asked).disk == pytest.approx(size(made), rel=0.003)


@pytest.mark.parametrize(("name", "variant"), [("llama", "fp32"), ("llama-int4", "int4")])
def test_made_again_elsewhere_the_bytes_are_the_same(
    shop: Workshop, models: Models, name: str, variant: str, tmp_path: Path
) -> None:
    first = tree(binary(shop, models[name], variant))
    moved = tmp_path / "a-longer-name-of-the-folder"
    shutil.copytree(models[name].path, moved)
    assert tree(binary(shop.fresh(), BuiltModel(moved, models[name].info), variant)) == first
    assert sorted(first) == ["model.bin", "model.xml"]
    for trace in (b"rt_info", b"/tmp", b"DIR", b".onnx", b"2026"):
        assert trace not in first["model.xml"]


def test_integers_are_stored_and_a_tied_matrix_once(shop: Workshop, models: Models) -> None:
    network = ET.parse(binary(shop, models["llama-int4"], "int4") / "model.xml").getroot()
    stored = [layer.find("data") for layer in network.iter("layer") if layer.get("type") == "Const"]
    shapes = [(data.get("element_type"), data.get("shape")) for data in stored if data is not None]
    codes = [shape for kind, shape in shapes if kind == "i4"]
    assert len(codes) == 15  # Seven matrices of each layer, and one that is looked up and multiplied by.
    assert codes.count(f"{LLAMA['vocab_size']}, 2, 32") == 1
    assert not [shape for kind, shape in shapes if kind == "f32" and shape in ("64, 64", "96, 64", "64, 96")]


def test_run_shows_what_comes_first(
    shop: Workshop, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = toolchain().device_tool(HERE)
    assert tool is not None
    inputs = {"binary": binary(shop, models["llama"], "int4")}
    capsys.readouterr()
    shop.call(tool, inputs, arguments=("1", "40", "7"))
    assert len(capsys.readouterr().out.splitlines()) == 5
    with pytest.raises(ToolError, match=f"takes {LENGTH} numbers, not {LENGTH + 1}"):
        shop.call(tool, inputs, arguments=("1",) * (LENGTH + 1))
