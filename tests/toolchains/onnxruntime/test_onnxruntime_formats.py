"""Every format of small models: made, run in ONNX Runtime, compared with torch, sized, made again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from modelbuild.api import Artifact, Conversion, ModelInfo, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.packed_weights import read_tensors, split_packed
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.rounding import round_groups
from tests.tiny_text import write_dataset, write_tokenizer
from tests.toolchains.conftest import LockedTools
from tests.toolchains.declared import (
    DATA,
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
from toolchains.onnxruntime.graph import DenseGraph, write
from toolchains.onnxruntime.rule import OnnxruntimeToolchain

pytestmark = pytest.mark.slow
IMAGES = replace(DATA, directory=Artifact("images", "tree"), task="image_classification")
INT4: dict[str, Any] = {"bits": 4}
ROWS: dict[str, Any] = {"bits": 8, "group_size": 0}
CASES = {
    "llama": (LLAMA, None),
    "untied": (LLAMA | {"tie_word_embeddings": False, "num_key_value_heads": 4}, None),
    "vit": (VIT, None),
    "llama-int4": (LLAMA, INT4),
    "llama-int4a": (LLAMA, INT4 | {"symmetric": False, "embeddings": "float"}),
    "llama-int2": (LLAMA, INT4 | {"bits": 2}),
    "llama-int8": (LLAMA, ROWS),
    "vit-int4": (VIT, INT4 | {"group_size": 16}),
    "vit-int8": (VIT, ROWS),
}
MADE = [
    *[("llama", variant) for variant in ("fp32", "int8", "int4", "int8-dynamic", "int8-static")],
    ("untied", "int4"),
    *[("vit", variant) for variant in ("fp32", "int4", "int8-static")],
    ("llama-int4", "fp32"),
    ("llama-int4", "int4"),
    ("llama-int4a", "int4"),
    ("llama-int2", "int4"),
    *[("llama-int8", variant) for variant in ("int8", "int8-dynamic", "int8-static")],
    ("vit-int4", "int4"),
    ("vit-int8", "int8-dynamic"),
]
# Largest difference of a logit, as a part of the largest logit: about twice what was measured. Ranges are measured
# on eight sentences, and what is asked are random tokens, so that some activations are cut off.
BOUNDS = {"fp32": 1e-5, "int8-dynamic": 0.12, "int8-static": 0.25}


class Workshop:
    """Models, exports and binaries, each made when it is first asked for."""

    def __init__(self, locked: LockedTools, folder: Path) -> None:
        info = RuleRunner().analyze(OnnxruntimeToolchain).get(RuntimeToolchainInfo)
        self.folder = folder
        self.toolchain = Toolchain(locked, info, {DATA.directory: folder / "dataset"})
        self._models: dict[str, ModelInfo] = {}
        self._binaries: dict[tuple[str, str, int], Path] = {}
        write_dataset(folder / "dataset")
        write_tokenizer(folder / "dataset", folder / "tokenizer")
        (folder / "images").mkdir()
        rows = [{"pixels": np.random.default_rng(n).random((8, 8)).tolist(), "label": 0} for n in range(20)]
        (folder / "images/calibration.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.toolchain.files[IMAGES.directory] = folder / "images"

    def model(self, name: str) -> ModelInfo:
        """What the toolchain is told of the model."""
        if name not in self._models:
            architecture, grid = CASES[name]
            tokenizer = None if architecture is VIT else self.folder / "tokenizer"
            info = random_model(self.folder / f"{name}-float", architecture, tokenizer)
            if grid:
                info = rounded_model(self.folder / f"{name}-float", info, self.folder / name, **grid)
            self._models[name] = info
            self.toolchain.files[info.weights] = self.folder / info.weights.path
            probes(self.folder / f"{name}-probes", architecture)
        return self._models[name]

    def path(self, name: str) -> Path:
        """Where the model lies."""
        return self.toolchain.files[self.model(name).weights]

    def binary(self, name: str, variant: str, attempt: int = 0) -> Path:
        """The binary; another attempt is made from scratch."""
        key = (name, variant, attempt)
        if key not in self._binaries:
            data = IMAGES if CASES[name][0] is VIT else DATA
            calibration = data if variant == "int8-static" else None
            model, out = self.model(name), self.folder / f"{name}-{variant}-made-{attempt}"
            toolchain = replace(self.toolchain, made={}) if attempt else self.toolchain
            self._binaries[key] = toolchain.convert(model, f"onnx:{variant}", out, calibration)
        return self._binaries[key]

    def answer(self, name: str, variant: str) -> Any:
        """The logits of ONNX Runtime."""
        out = self.folder / f"{name}-{variant}-asked"
        return self.toolchain.ask(self.binary(name, variant), self.folder / f"{name}-probes", out)

    def expected(self, name: str, variant: str) -> Any:
        """The logits of torch; of floats that the format rounds, with matrices that are rounded alike."""
        info, path = self.model(name), self.path(name)
        if variant in ("int8", "int4") and not info.quantization:
            path = self.folder / f"{name}-{variant}-rounded"
            shutil.copytree(self.path(name), path)
            tensors = load_file(path / "model.safetensors")
            for key, values in tensors.items():
                if values.ndim == 2:
                    group = {"int4": 16 if values.shape[1] % 32 else 32, "int8": values.shape[1]}[variant]
                    group = 32 if variant == "int8" and values.shape[1] == 96 else group
                    tensors[key] = round_groups(values, int(variant[3:]), group).dequantized()
            save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return torch_logits(path, info, self.folder / f"{name}-probes")


@pytest.fixture(scope="module")
def shop(locked: LockedTools, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(locked, tmp_path_factory.mktemp("onnxruntime"))


@pytest.mark.parametrize(("name", "variant"), MADE)
def test_onnx_runtime_answers_as_torch(shop: Workshop, name: str, variant: str) -> None:
    answer, expected = shop.answer(name, variant), shop.expected(name, variant)
    error = np.abs(answer - expected).max() / np.abs(expected).max()
    # Where activations stay floats, the integers are all that differs, and torch computes with the same ones.
    exact = variant not in BOUNDS
    assert error <= BOUNDS.get(variant, 1e-5)
    assert (answer.argmax(-1) == expected.argmax(-1)).mean() >= (1.0 if exact else 0.85)


@pytest.mark.parametrize(("name", "variant"), MADE)
def test_sizes_are_what_was_told_before(shop: Workshop, name: str, variant: str) -> None:
    told = shop.toolchain.info.footprint(Conversion(shop.model(name), f"onnx:{variant}", platform()))
    assert told.disk == pytest.approx(size(shop.binary(name, variant)), rel=0.01)


@pytest.mark.parametrize("variant", ["int4", "int8-static"])
def test_made_again_from_scratch_the_bytes_are_the_same(shop: Workshop, variant: str) -> None:
    assert contents(shop.binary("llama", variant)) == contents(shop.binary("llama", variant, attempt=1))


def initializers(binary: Path) -> dict[str, Any]:
    proto = onnx.load(binary / "model.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def test_the_codes_of_the_checkpoint_are_the_codes_of_the_file(shop: Workshop) -> None:
    stored = initializers(shop.binary("llama-int4", "int4"))
    packed, _ = split_packed(read_tensors(shop.path("llama-int4")), 4)
    assert len(packed) == 15
    for name, weight in packed.items():
        data = stored.get(f"{name}.matrix", stored.get(f"{name}.rows"))
        assert data is not None
        low, high = data & 15, data >> 4
        codes = np.stack([low, high], axis=-1).reshape(weight.codes.shape).astype(np.int16) - 8
        np.testing.assert_array_equal(codes, weight.codes)
        np.testing.assert_array_equal(stored[f"{name}.scales"], weight.scales)
    matrices = [v for v in stored.values() if v.dtype == np.float32 and v.ndim == 2 and v.size > 2000]
    assert matrices == []


def test_integer_products_hold_the_codes_of_the_checkpoint(shop: Workshop) -> None:
    packed, _ = split_packed(read_tensors(shop.path("llama-int8")), 8)
    for variant in ("int8-dynamic", "int8-static"):
        stored = initializers(shop.binary("llama-int8", variant))
        for name, weight in packed.items():
            data = stored[f"{name}.columns"].T if f"{name}.columns" in stored else stored[f"{name}.rows"]
            np.testing.assert_array_equal(data.astype(np.int16) - 128, weight.codes)
            np.testing.assert_array_equal(stored[f"{name}.row_scales"], weight.scales[:, 0])


def test_a_tied_matrix_is_stored_once(shop: Workshop) -> None:
    rows = LLAMA["vocab_size"]
    for variant in ("int8", "int4", "int8-dynamic", "int8-static"):
        stored = initializers(shop.binary("llama", variant))
        matrices = {
            name: values for name, values in stored.items() if values.ndim > 1 and values.dtype == np.uint8
        }
        tables = [name for name, values in matrices.items() if rows in values.shape]
        assert tables == ["model.embed_tokens.weight.rows"], variant


def test_no_path_of_this_machine_is_in_a_file(shop: Workshop) -> None:
    for variant in ("fp32", "int4", "int8-dynamic", "int8-static"):
        content = (shop.binary("llama", variant) / "model.onnx").read_bytes()
        for trace in (str(shop.folder).encode(), b"site-packages", b".py"):
            assert trace not in content


def test_products_do_not_saturate_where_weights_and_activations_are_largest(
    shop: Workshop, tmp_path: Path
) -> None:
    # Signed weights would: two products of 255 x 127 do not fit into 16 bits.
    info = random_model(tmp_path / "loud", VIT | {"num_hidden_layers": 1})
    weights = load_file(tmp_path / "loud/model.safetensors")
    key = "vit.layers.0.mlp.fc2.weight"
    weights[key] = np.full_like(weights[key], weights[key].max())
    weights["vit.layers.0.mlp.fc1.bias"] = np.full_like(weights["vit.layers.0.mlp.fc1.bias"], 3.0)
    save_file(weights, tmp_path / "loud/model.safetensors")
    shop.toolchain.files[info.weights] = tmp_path / "loud"
    asked = probes(tmp_path / "probes", VIT)
    binary = shop.toolchain.convert(info, "onnx:int8-dynamic", tmp_path / "made")
    answer = shop.toolchain.ask(binary, asked, tmp_path / "asked")
    expected = torch_logits(tmp_path / "loud", info, asked)
    assert np.abs(answer - expected).max() / np.abs(expected).max() < 0.05


def test_weights_of_more_than_a_file_can_hold_lie_beside_it(shop: Workshop, tmp_path: Path) -> None:
    graph = DenseGraph(shop.binary("llama", "fp32"))
    for name, limit in (("one", 1 << 30), ("two", 1000)):
        write(graph.proto(), tmp_path / name, limit)
    assert sorted(contents(tmp_path / "two")) == ["model.onnx", "model.onnx.data"]
    assert size(tmp_path / "two/model.onnx") < 40_000
    asked = shop.folder / "llama-probes"
    one, two = (
        shop.toolchain.ask(tmp_path / name, asked, tmp_path / f"{name}-asked") for name in ("one", "two")
    )
    np.testing.assert_array_equal(one, two)


def test_a_text_too_short_to_calibrate_on_is_an_error(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset.json").write_text(json.dumps({"task": "text_generation"}))
    row = {"prompt": "hold", "completion": "[]"}
    (tmp_path / "data/calibration.jsonl").write_text(json.dumps(row) + "\n")
    shop.toolchain.files[Artifact("short", "tree")] = tmp_path / "data"
    short = replace(DATA, directory=Artifact("short", "tree"))
    with pytest.raises(ToolError, match=f"less than one row of {LENGTH}"):
        shop.toolchain.convert(shop.model("llama"), "onnx:int8-static", tmp_path / "made", short)


def test_run_shows_what_comes_first(shop: Workshop) -> None:
    tool = shop.toolchain.info.device_tool(platform())
    assert tool is not None
    binary = {"binary": shop.binary("llama", "int4")}
    lines = shop.toolchain.locked.call(tool, {}, binary, {}, arguments=("1", "40", "7")).splitlines()
    shares = [float(line.split()[1].rstrip("%")) for line in lines]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    with pytest.raises(ToolError, match=f"takes {LENGTH} numbers, not {LENGTH + 1}"):
        shop.toolchain.locked.call(tool, {}, binary, {}, arguments=("1",) * (LENGTH + 1))
