"""What toolchains make of a model that is integers already: its own numbers, or nothing and a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelbuild.api import Artifact, Conversion, ModelInfo, PlatformInfo, Rule, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.packed_weights import read_tensors, split_packed
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import tree
from tests.toolchains.workshop import (
    DATA,
    HERE,
    LLAMA,
    BuiltModel,
    Workshop,
    device,
    gptq_model,
    largest_error,
    random_model,
    rounded_model,
)
from toolchains.coreml.rule import CoremlToolchain
from toolchains.executorch.rule import ExecutorchToolchain
from toolchains.gguf.rule import LlamaCppToolchain
from toolchains.iree.rule import IreeToolchain
from toolchains.litert.rule import LitertToolchain
from toolchains.ncnn.rule import NcnnToolchain
from toolchains.onnxruntime.rule import OnnxruntimeGenaiToolchain, OnnxruntimeToolchain
from toolchains.openvino.rule import OpenvinoToolchain

# Rows that are whole groups of 128.
ARCHITECTURE = LLAMA | {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 1}
RULES: dict[str, type[Rule]] = {
    "coreml": CoremlToolchain,
    "executorch": ExecutorchToolchain,
    "genai": OnnxruntimeGenaiToolchain,
    "gguf": LlamaCppToolchain,
    "iree": IreeToolchain,
    "litert": LitertToolchain,
    "ncnn": NcnnToolchain,
    "onnx": OnnxruntimeToolchain,
    "openvino": OpenvinoToolchain,
}
GRIDS: dict[str, dict[str, Any]] = {
    "int4-32": {"bits": 4, "group_size": 32},
    "int4-64": {"bits": 4, "group_size": 64},
    "int4-128": {"bits": 4, "group_size": 128},
    "int4-128-asymmetric": {"bits": 4, "group_size": 128, "symmetric": False},
    "int8-rows": {"bits": 8, "group_size": 0},
    "int8-32": {"bits": 8, "group_size": 32},
    "int8-rows-asymmetric": {"bits": 8, "group_size": 0, "symmetric": False},
}
SYMMETRIC_INT4 = ("int4-32", "int4-64", "int4-128")
INT4, INT8 = tuple(GRIDS)[:4], tuple(GRIDS)[4:]
HELD: dict[str, tuple[str, ...]] = {
    "coreml:fp16": tuple(GRIDS),
    "coreml:fp32": tuple(GRIDS),
    "executorch:fp32": tuple(GRIDS),
    "executorch:int8": ("int8-rows",),
    "genai:fp32": tuple(GRIDS),
    "genai:int4": INT4,
    "genai:int8": INT8,
    "gguf:Q4_0": SYMMETRIC_INT4,
    "gguf:Q8_0": ("int8-rows", "int8-32"),
    "gguf:auto": (*SYMMETRIC_INT4, "int8-rows", "int8-32"),
    "iree:fp32": tuple(GRIDS),
    "litert:fp32": tuple(GRIDS),
    "litert:int8": ("int8-rows",),
    "ncnn:fp16": tuple(GRIDS),
    "ncnn:fp32": tuple(GRIDS),
    "ncnn:int4": SYMMETRIC_INT4,
    "ncnn:int8": (*SYMMETRIC_INT4, "int8-rows", "int8-32"),  # Codes of 4 bits are codes of 8 bits too.
    "onnx:fp32": tuple(GRIDS),
    "onnx:int4": INT4,
    "onnx:int8": INT8,
    "onnx:int8-dynamic": ("int8-rows",),
    "onnx:int8-static": ("int8-rows",),
    "openvino:fp32": tuple(GRIDS),
    "openvino:int4": INT4,
    "openvino:int8": INT8,
}
"""Format -> the parents whose numbers it can hold; of other formats, no parent of integers is taken."""
REASONS = (
    "a second time",
    "would round them again",
    "are symmetric there with one scale a row",
    "takes integers only of 8 bits, symmetric, with one scale a row",
    "knows no zero points",
)


def toolchain(format_: str) -> RuntimeToolchainInfo:
    return RuleRunner().analyze(RULES[format_.partition(":")[0]]).get(RuntimeToolchainInfo)


def place(format_: str) -> PlatformInfo:
    return device("aarch64", "ios") if format_.startswith("coreml:") else HERE


@pytest.mark.parametrize("stored", ["compressed-tensors", "gptq"])
@pytest.mark.parametrize("family", RULES)
def test_a_format_holds_the_numbers_or_says_why_it_cannot(family: str, stored: str) -> None:
    info = toolchain(family)
    for format_ in info.formats:
        for name, grid in GRIDS.items():
            quantization = {"scheme": "gptq", "symmetric": True, "embeddings": "rtn", **grid}
            model = ModelInfo(
                Artifact("m", "tree"),
                "text_generation",
                ARCHITECTURE,
                f"int{grid['bits']}",
                stored,
                quantization=quantization,
            )
            reason = info.refusal(Conversion(model, format_, place(format_)))
            assert bool(reason) == (name not in HELD.get(format_, ())), (format_, name, reason)
            assert not reason or any(each in reason for each in REASONS), (format_, name, reason)


@pytest.fixture(scope="module")
def parents(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    """The same random weights on each grid of GRIDS, and in AutoGPTQ's format: `gptq/int4-64`."""
    folder = tmp_path_factory.mktemp("parents")
    floats = random_model(folder / "floats", ARCHITECTURE, text / "tokenizer")
    made = {name: rounded_model(floats, folder / name, **grid) for name, grid in GRIDS.items()}
    return made | {f"gptq/{name}": gptq_model(model, folder / f"gptq-{name}") for name, model in made.items()}


def test_both_formats_of_checkpoints_say_the_same(parents: dict[str, BuiltModel]) -> None:
    for name in GRIDS:
        assert np.array_equal(parents[f"gptq/{name}"].answers(), parents[name].answers()), name


def binary(shop: Workshop, model: BuiltModel, format_: str) -> Path:
    data = DATA if format_ == "onnx:int8-static" else None
    return shop.make(toolchain(format_), model, format_, place(format_), data=data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "name"),
    [
        ("genai:int4", "gptq/int4-128-asymmetric"),
        ("genai:int8", "gptq/int8-rows"),
        ("iree:fp32", "gptq/int4-64"),
        ("ncnn:fp32", "gptq/int4-128-asymmetric"),
        ("ncnn:int4", "gptq/int4-128"),
        ("onnx:int4", "gptq/int4-64"),
        ("onnx:int4", "gptq/int4-128-asymmetric"),
        ("onnx:int8", "gptq/int8-rows-asymmetric"),
        ("openvino:int4", "gptq/int4-128-asymmetric"),
        ("openvino:int8", "int8-rows-asymmetric"),
        ("openvino:int8", "gptq/int8-rows"),
    ],
)
def test_answers_are_those_of_the_checkpoint(
    shop: Workshop, parents: dict[str, BuiltModel], format_: str, name: str
) -> None:
    model = parents[name]
    found = shop.ask(toolchain(format_), binary(shop, model, format_), model.rows())
    assert largest_error(found, model.answers()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "name"),
    [
        ("gguf:Q4_0", "int4-128"),
        ("gguf:Q8_0", "int8-rows"),
        ("ncnn:int8", "int4-64"),
    ],
)
def test_the_file_is_that_of_the_other_format(
    shop: Workshop, parents: dict[str, BuiltModel], format_: str, name: str
) -> None:
    """Of compressed-tensors, the tests of each toolchain find the codes in the file."""
    first, second = (binary(shop, parents[each], format_) for each in (name, f"gptq/{name}"))
    if first.is_dir():
        assert tree(first) == tree(second)
    else:
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["executorch", "litert"])
def test_codes_and_scales_are_in_the_file(
    shop: Workshop, parents: dict[str, BuiltModel], family: str
) -> None:
    model = parents["gptq/int8-rows"]
    content = binary(shop, model, f"{family}:int8").read_bytes()
    packed, _ = split_packed(read_tensors(model.path), 8)
    assert len(packed) == 8  # Seven matrices of the layer, and the one that is looked up and multiplied by.
    for name, weight in packed.items():
        assert weight.codes.tobytes() in content, name
        assert weight.scales.tobytes() in content, name


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["int8-dynamic", "int8-static"])
def test_products_of_integers_are_the_same_of_both_formats(
    shop: Workshop, parents: dict[str, BuiltModel], variant: str
) -> None:
    """The files differ in a name: in AutoGPTQ's format the output matrix is tied."""
    models = [parents[name] for name in ("int8-rows", "gptq/int8-rows")]
    info = toolchain("onnx")
    first, second = (shop.ask(info, binary(shop, m, f"onnx:{variant}"), models[0].rows()) for m in models)
    assert np.array_equal(first, second)


def test_columns_in_another_order_are_refused(parents: dict[str, BuiltModel], tmp_path: Path) -> None:
    """As `desc_act` leaves them. The rule `quantize` makes no such checkpoint, and `pretrained` takes none."""
    model = parents["gptq/int4-32"]
    (tmp_path / "reordered").mkdir()
    for path in model.path.iterdir():
        (tmp_path / "reordered" / path.name).write_bytes(path.read_bytes())
    tensors = load_file(model.path / "model.safetensors")
    for key in tensors:
        if key.endswith("down_proj.g_idx"):
            tensors[key] = np.ascontiguousarray(tensors[key][::-1])
    save_file(tensors, tmp_path / "reordered/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ToolError, match="are not in their own order"):
        BuiltModel(tmp_path / "reordered", model.info).answers()
