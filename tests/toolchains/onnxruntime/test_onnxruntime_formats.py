"""Every format of small models: made, run in ONNX Runtime, compared with torch, sized, made again."""

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from modelbuild.api import Artifact, Conversion, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.packed_weights import read_tensors, split_packed
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.rounding import round_groups
from tests.tiny_text import tree
from tests.toolchains.workshop import (
    DATA,
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


def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(OnnxruntimeToolchain).get(RuntimeToolchainInfo)


@dataclass
class Models:
    """The models of CASES, each made when it is first asked for. folder: has `tokenizer`."""

    folder: Path
    _made: dict[str, BuiltModel] = field(default_factory=dict)

    def __getitem__(self, name: str) -> BuiltModel:
        if name not in self._made:
            architecture, grid = CASES[name]
            tokenizer = None if architecture is VIT else self.folder / "tokenizer"
            model = random_model(self.folder / f"{name}-float", architecture, tokenizer)
            self._made[name] = rounded_model(model, self.folder / name, **grid) if grid else model
        return self._made[name]

    def expected(self, name: str, variant: str) -> Any:
        """The logits of torch; of floats that the format rounds, with matrices that are rounded alike."""
        model = self[name]
        if variant not in ("int8", "int4") or model.info.quantization:
            return model.answers()
        path = self.folder / f"{name}-{variant}-rounded"
        shutil.copytree(model.path, path)
        tensors = load_file(path / "model.safetensors")
        for key, values in tensors.items():
            if values.ndim == 2:
                group = {"int4": 16 if values.shape[1] % 32 else 32, "int8": values.shape[1]}[variant]
                group = 32 if variant == "int8" and values.shape[1] == 96 else group
                tensors[key] = round_groups(values, int(variant[3:]), group).dequantized()
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return BuiltModel(path, model.info).answers()


@pytest.fixture(scope="module")
def models(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(text / "tokenizer", folder / "tokenizer")
    return Models(folder)


@pytest.fixture(scope="module")
def shop(environments: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Knows texts and images to calibrate on."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    (folder / "images").mkdir()
    rows = [{"pixels": np.random.default_rng(n).random((8, 8)).tolist(), "label": 0} for n in range(20)]
    (folder / "images/calibration.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {DATA.directory: text / "dataset", IMAGES.directory: folder / "images"}
    return Workshop(environments, folder, files)


def binary(shop: Workshop, model: BuiltModel, variant: str) -> Path:
    data = (DATA if model.info.is_text else IMAGES) if variant == "int8-static" else None
    return shop.make(toolchain(), model, f"onnx:{variant}", data=data)


@pytest.mark.parametrize(("name", "variant"), MADE)
def test_onnx_runtime_answers_as_torch(shop: Workshop, models: Models, name: str, variant: str) -> None:
    model = models[name]
    answer = shop.ask(toolchain(), binary(shop, model, variant), model.rows())
    expected = models.expected(name, variant)
    # Where activations stay floats, the integers are all that differs, and torch computes with the same ones.
    assert largest_error(answer, expected) <= BOUNDS.get(variant, 1e-5)
    assert top1_agreement(answer, expected) >= (0.85 if variant in BOUNDS else 1.0)


@pytest.mark.parametrize(("name", "variant"), MADE)
def test_sizes_are_what_was_told_before(shop: Workshop, models: Models, name: str, variant: str) -> None:
    model = models[name]
    told = toolchain().footprint(Conversion(model.info, f"onnx:{variant}", HERE, sequence_length=LENGTH))
    assert told.disk == pytest.approx(size(binary(shop, model, variant)), rel=0.01)


@pytest.mark.parametrize(
    ("architecture", "length"),
    [
        (VIT | {"hidden_size": 16, "image_size": 20, "num_labels": 3}, LENGTH),
        (LLAMA | {"hidden_size": 40}, 8),
    ],
    ids=["many patches", "short row"],
)
def test_what_the_export_computes_ahead_is_counted(
    shop: Workshop, tmp_path: Path, architecture: dict[str, Any], length: int
) -> None:
    model = random_model(tmp_path / "model", architecture)
    for variant in ("fp32", "int8"):
        asked = Conversion(model.info, f"onnx:{variant}", HERE, sequence_length=length)
        made = shop.make(toolchain(), model, asked.format, length=length)
        assert toolchain().footprint(asked).disk == pytest.approx(size(made), rel=0.003)


@pytest.mark.parametrize("variant", ["int4", "int8-static"])
def test_made_again_from_scratch_the_bytes_are_the_same(shop: Workshop, models: Models, variant: str) -> None:
    first, again = (binary(each, models["llama"], variant) for each in (shop, shop.fresh()))
    assert tree(first) == tree(again)


def initializers(made: Path) -> dict[str, Any]:
    proto = onnx.load(made / "model.onnx")
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def test_the_codes_of_the_checkpoint_are_the_codes_of_the_file(shop: Workshop, models: Models) -> None:
    stored = initializers(binary(shop, models["llama-int4"], "int4"))
    packed, _ = split_packed(read_tensors(models["llama-int4"].path), 4)
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


def test_integer_products_hold_the_codes_of_the_checkpoint(shop: Workshop, models: Models) -> None:
    packed, _ = split_packed(read_tensors(models["llama-int8"].path), 8)
    for variant in ("int8-dynamic", "int8-static"):
        stored = initializers(binary(shop, models["llama-int8"], variant))
        for name, weight in packed.items():
            data = stored[f"{name}.columns"].T if f"{name}.columns" in stored else stored[f"{name}.rows"]
            np.testing.assert_array_equal(data.astype(np.int16) - 128, weight.codes)
            np.testing.assert_array_equal(stored[f"{name}.row_scales"], weight.scales[:, 0])


def test_a_tied_matrix_is_stored_once(shop: Workshop, models: Models) -> None:
    rows = LLAMA["vocab_size"]
    for variant in ("int8", "int4", "int8-dynamic", "int8-static"):
        stored = initializers(binary(shop, models["llama"], variant))
        matrices = {
            name: values for name, values in stored.items() if values.ndim > 1 and values.dtype == np.uint8
        }
        tables = [name for name, values in matrices.items() if rows in values.shape]
        assert tables == ["model.embed_tokens.weight.rows"], variant


def test_no_path_of_this_machine_is_in_a_file(shop: Workshop, models: Models) -> None:
    for variant in ("fp32", "int4", "int8-dynamic", "int8-static"):
        content = (binary(shop, models["llama"], variant) / "model.onnx").read_bytes()
        for trace in (str(shop.directory).encode(), b"site-packages", b".py"):
            assert trace not in content


def test_products_do_not_saturate_where_weights_and_activations_are_largest(
    shop: Workshop, tmp_path: Path
) -> None:
    # Signed weights would: two products of 255 x 127 do not fit into 16 bits.
    model = random_model(tmp_path / "loud", VIT | {"num_hidden_layers": 1})
    weights = load_file(model.path / "model.safetensors")
    key = "vit.layers.0.mlp.fc2.weight"
    weights[key] = np.full_like(weights[key], weights[key].max())
    weights["vit.layers.0.mlp.fc1.bias"] = np.full_like(weights["vit.layers.0.mlp.fc1.bias"], 3.0)
    save_file(weights, model.path / "model.safetensors")
    answer = shop.ask(toolchain(), binary(shop, model, "int8-dynamic"), model.rows())
    assert largest_error(answer, model.answers()) < 0.05


def test_weights_of_more_than_a_file_can_hold_lie_beside_it(
    shop: Workshop, models: Models, tmp_path: Path
) -> None:
    graph = DenseGraph(binary(shop, models["llama"], "fp32"))
    for name, limit in (("one", 1 << 30), ("two", 1000)):
        write(graph.proto(), tmp_path / name, limit)
    assert sorted(tree(tmp_path / "two")) == ["model.onnx", "model.onnx.data"]
    assert size(tmp_path / "two/model.onnx") < 40_000
    rows = models["llama"].rows()
    one, two = (shop.ask(toolchain(), tmp_path / name, rows) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)


def test_a_text_too_short_to_calibrate_on_is_an_error(
    environments: Path, models: Models, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset.json").write_text(json.dumps({"task": "text_generation"}))
    row = {"prompt": "hold", "completion": "[]"}
    (tmp_path / "data/calibration.jsonl").write_text(json.dumps(row) + "\n")
    short = replace(DATA, directory=Artifact("short", "tree"))
    shop = Workshop(environments, tmp_path, {short.directory: tmp_path / "data"})
    with pytest.raises(ToolError, match=f"less than one row of {LENGTH}"):
        shop.make(toolchain(), models["llama"], "onnx:int8-static", data=short)


def test_run_shows_what_comes_first(
    shop: Workshop, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = toolchain().device_tool(HERE)
    assert tool is not None
    inputs = {"binary": binary(shop, models["llama"], "int4")}
    capsys.readouterr()
    shop.call(tool, inputs, arguments=("1", "40", "7"))
    shares = [float(line.split()[1].rstrip("%")) for line in capsys.readouterr().out.splitlines()]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    with pytest.raises(ToolError, match=f"takes {LENGTH} numbers, not {LENGTH + 1}"):
        shop.call(tool, inputs, arguments=("1",) * (LENGTH + 1))
