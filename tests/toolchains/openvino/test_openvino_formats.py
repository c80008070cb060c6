"""Every format of small models: made, run in OpenVINO, compared with torch, sized, made again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelbuild.api import Conversion, ModelInfo, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.rounding import round_groups, round_rows
from tests.toolchains.conftest import LockedTools
from tests.toolchains.declared import (
    LENGTH,
    LLAMA,
    VIT,
    Toolchain,
    contents,
    platform,
    probes,
    random_model,
    rounded_model,
    size,
    torch_logits,
)
from toolchains.openvino.rule import OpenvinoToolchain

pytestmark = pytest.mark.slow
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "llama": (LLAMA, None),
    "untied": (LLAMA | {"tie_word_embeddings": False, "num_key_value_heads": 4}, None),
    "vit": (VIT, None),
    "llama-int4": (LLAMA, {"bits": 4}),
    "llama-int2": (LLAMA, {"bits": 2, "symmetric": False, "embeddings": "float"}),
    "llama-int8": (LLAMA, {"bits": 8, "group_size": 0}),
    "vit-int4": (VIT, {"bits": 4, "group_size": 8}),
}
MADE = [
    *[("llama", variant) for variant in ("fp32", "int8", "int4")],
    ("untied", "int4"),
    ("vit", "fp32"),
    ("vit", "int4"),
    ("llama-int4", "fp32"),
    ("llama-int4", "int4"),
    ("llama-int2", "int4"),
    ("llama-int8", "int8"),
    ("vit-int4", "int4"),
]


class Workshop:
    """Models and binaries, each made when it is first asked for."""

    def __init__(self, locked: LockedTools, folder: Path) -> None:
        info = RuleRunner().analyze(OpenvinoToolchain).get(RuntimeToolchainInfo)
        self.folder = folder
        self.toolchain = Toolchain(locked, info, {})
        self._models: dict[str, ModelInfo] = {}
        self._binaries: dict[tuple[str, str], Path] = {}

    def model(self, name: str) -> ModelInfo:
        """What the toolchain is told of the model."""
        if name not in self._models:
            architecture, grid = CASES[name]
            info = random_model(self.folder / f"{name}-float", architecture)
            if grid:
                info = rounded_model(self.folder / f"{name}-float", info, self.folder / name, **grid)
            self._models[name] = info
            self.toolchain.files[info.weights] = self.folder / info.weights.path
            probes(self.folder / f"{name}-probes", architecture)
        return self._models[name]

    def binary(self, name: str, variant: str) -> Path:
        """The tree."""
        if (name, variant) not in self._binaries:
            model, out = self.model(name), self.folder / f"{name}-{variant}-made"
            self._binaries[name, variant] = self.toolchain.convert(model, f"openvino:{variant}", out)
        return self._binaries[name, variant]

    def expected(self, name: str, variant: str) -> Any:
        """The logits of torch; of floats that the format rounds, with matrices that are rounded alike."""
        info = self.model(name)
        path = self.toolchain.files[info.weights]
        if variant != "fp32" and not info.quantization:
            rounded = self.folder / f"{name}-{variant}-rounded"
            shutil.copytree(path, rounded)
            tensors = load_file(rounded / "model.safetensors")
            for key, values in tensors.items():
                if values.ndim == 2:
                    group = 16 if values.shape[1] % 32 else 32
                    weight = round_groups(values, 4, group) if variant == "int4" else round_rows(values)
                    tensors[key] = weight.dequantized()
            save_file(tensors, rounded / "model.safetensors", metadata={"format": "pt"})
            path = rounded
        return torch_logits(path, info, self.folder / f"{name}-probes")


@pytest.fixture(scope="module")
def shop(locked: LockedTools, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(locked, tmp_path_factory.mktemp("openvino"))


@pytest.mark.parametrize(("name", "variant"), MADE)
def test_openvino_answers_as_torch(shop: Workshop, name: str, variant: str) -> None:
    asked, out = shop.folder / f"{name}-probes", shop.folder / f"{name}-{variant}-asked"
    answer = shop.toolchain.ask(shop.binary(name, variant), asked, out)
    expected = shop.expected(name, variant)
    assert np.abs(answer - expected).max() <= 1e-5 * np.abs(expected).max()
    assert (answer.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize(("name", "variant"), MADE)
def test_sizes_are_what_was_told_before(shop: Workshop, name: str, variant: str) -> None:
    told = shop.toolchain.info.footprint(Conversion(shop.model(name), f"openvino:{variant}", platform()))
    assert told.disk == pytest.approx(size(shop.binary(name, variant)), rel=0.01)


@pytest.mark.parametrize(("name", "variant"), [("llama", "fp32"), ("llama-int4", "int4")])
def test_made_again_elsewhere_the_bytes_are_the_same(
    shop: Workshop, name: str, variant: str, tmp_path: Path
) -> None:
    first = contents(shop.binary(name, variant))
    moved = tmp_path / "a-longer-name-of-the-folder"
    info = shop.model(name)
    shutil.copytree(shop.toolchain.files[info.weights], moved)
    again = replace(shop.toolchain, files={info.weights: moved}, made={})
    assert contents(again.convert(info, f"openvino:{variant}", tmp_path / "made")) == first
    assert sorted(first) == ["model.bin", "model.xml"]
    for trace in (b"rt_info", b"/tmp", b"DIR", b".onnx", b"2026"):
        assert trace not in first["model.xml"]


def test_integers_are_stored_and_a_tied_matrix_once(shop: Workshop) -> None:
    network = ET.parse(shop.binary("llama-int4", "int4") / "model.xml").getroot()
    stored = [layer.find("data") for layer in network.iter("layer") if layer.get("type") == "Const"]
    shapes = [(data.get("element_type"), data.get("shape")) for data in stored if data is not None]
    codes = [shape for kind, shape in shapes if kind == "i4"]
    assert len(codes) == 15  # Seven matrices of each layer, and one that is looked up and multiplied by.
    assert codes.count(f"{LLAMA['vocab_size']}, 2, 32") == 1
    assert not [shape for kind, shape in shapes if kind == "f32" and shape in ("64, 64", "96, 64", "64, 96")]


def test_run_shows_what_comes_first(shop: Workshop) -> None:
    tool = shop.toolchain.info.device_tool(platform())
    assert tool is not None
    binary = {"binary": shop.binary("llama", "int4")}
    lines = shop.toolchain.locked.call(tool, {}, binary, {}, arguments=("1", "40", "7")).splitlines()
    assert len(lines) == 5
    with pytest.raises(ToolError, match=f"takes {LENGTH} numbers, not {LENGTH + 1}"):
        shop.toolchain.locked.call(tool, {}, binary, {}, arguments=("1",) * (LENGTH + 1))
