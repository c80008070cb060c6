"""GenAI folders of small models: built, loaded by ONNX Runtime GenAI, compared with torch, sized, built again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelbuild.api import (
    Artifact,
    Budget,
    Context,
    Conversion,
    Label,
    ModelInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import VOCAB_SIZE, write_dataset, write_tokenizer
from tests.toolchains.conftest import LockedTools
from tests.toolchains.declared import (
    LLAMA,
    Toolchain,
    contents,
    platform,
    probes,
    random_model,
    rounded_model,
    size,
    torch_logits,
)
from toolchains.onnxruntime.rule import OnnxruntimeGenaiToolchain

TEXT = ModelInfo(Artifact("m/model", "tree"), "text_generation", LLAMA)
INT4 = {"scheme": "gptq", "bits": 4, "group_size": 32, "symmetric": True}
# As many columns as tokens: what the builder takes for the output matrix.
CONFUSING = LLAMA | {"intermediate_size": VOCAB_SIZE, "tie_word_embeddings": False}


def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(OnnxruntimeGenaiToolchain).get(RuntimeToolchainInfo)


@pytest.mark.parametrize(
    ("model", "format_", "where", "reason"),
    [
        (replace(TEXT, task="image_classification"), "genai:fp32", platform(), "takes language models"),
        (TEXT, "genai:fp32", platform("wasm32", "emscripten"), "no ONNX Runtime GenAI for `wasm32`"),
        (TEXT, "genai:fp32", platform("aarch64", "ios"), "no ONNX Runtime GenAI for `aarch64` with `ios`"),
        (replace(TEXT, quantization=INT4), "genai:int8", platform(), "4-bit weights are not `genai:int8`"),
        (replace(TEXT, format="exl3"), "genai:int4", platform(), "weights stored as `exl3`"),
        (
            replace(TEXT, architecture={"model_type": "gpt2"}),
            "genai:fp32",
            platform(),
            "of type `gpt2` are not known",
        ),
        (
            replace(TEXT, architecture=LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}),
            "genai:fp32",
            platform(),
            "leaves out a rotary embedding of type `linear`",
        ),
        (
            replace(TEXT, architecture=LLAMA | {"model_type": "mistral", "max_position_embeddings": 8192}),
            "genai:fp32",
            platform(),
            "the model has one of 4096 tokens",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(model: ModelInfo, format_: str, where: Any, reason: str) -> None:
    assert reason in toolchain().refusal(Conversion(model, format_, where))


def test_one_action_with_nothing_of_the_device() -> None:
    info = toolchain()
    assert info.formats == ("genai:fp32", "genai:int8", "genai:int4")
    assert not info.refusal(Conversion(replace(TEXT, quantization=INT4), "genai:int4", platform()))
    ctx = Context(Label("", "pkg", "binary"))
    binary = info.convert(ctx, Conversion(TEXT, "genai:int4", platform()))
    (action,) = ctx.actions
    assert dict(action.params) == {"variant": "int4"}
    assert dict(action.inputs) == {"in/model": TEXT.weights}
    assert (binary.format, binary.runtime) == ("genai:int4", "onnxruntime-genai")
    for tool in (action.tool, info.device_tool(platform())):
        assert isinstance(tool, PythonTool)
        assert tool.lock is not None
        assert tool.lock.path.is_file()
    assert info.device_tool(platform("aarch64", "macos")) is None


def test_the_cache_is_as_long_as_the_device_needs() -> None:
    short = replace(platform(), budget=Budget(context_length=256))
    caches = [
        toolchain().footprint(Conversion(TEXT, "genai:fp32", where)).kv_cache for where in (platform(), short)
    ]
    assert caches == [2 * 2 * 32 * 2048 * 4, 2 * 2 * 32 * 256 * 4]


class Workshop:
    """Models, and the folders made of them when they are first asked for."""

    def __init__(self, locked: LockedTools, folder: Path) -> None:
        self.folder = folder
        self.toolchain = Toolchain(locked, toolchain(), {})
        write_dataset(folder / "dataset")
        tokenizer = write_tokenizer(folder / "dataset", folder / "tokenizer")
        self.models = {
            "float": random_model(folder / "float", LLAMA, tokenizer),
            "confusing": random_model(folder / "confusing", CONFUSING, tokenizer),
        }
        self.models["int4"] = rounded_model(
            folder / "float", self.models["float"], folder / "int4", bits=4, symmetric=False
        )
        self.toolchain.files |= {each.weights: folder / each.weights.path for each in self.models.values()}
        self.probes = probes(folder / "probes", LLAMA)
        self._made: dict[tuple[str, str], Path] = {}

    def binary(self, name: str, variant: str) -> Path:
        """The folder."""
        if (name, variant) not in self._made:
            out = self.folder / f"{name}-{variant}"
            self._made[name, variant] = self.toolchain.convert(self.models[name], f"genai:{variant}", out)
        return self._made[name, variant]


@pytest.fixture(scope="module")
def shop(locked: LockedTools, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(locked, tmp_path_factory.mktemp("genai"))


MADE = [("float", "fp32"), ("float", "int8"), ("confusing", "fp32"), ("int4", "int4")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), MADE)
def test_genai_answers_as_torch(shop: Workshop, name: str, variant: str, tmp_path: Path) -> None:
    answer = shop.toolchain.ask(shop.binary(name, variant), shop.probes, tmp_path / "asked")
    model = shop.models[name]
    expected = torch_logits(shop.folder / name, model, shop.probes)
    error = np.abs(answer - expected).max() / np.abs(expected).max()
    # int4: the checkpoint's own integers, so that nothing is lost.
    assert error < (0.06 if variant == "int8" else 1e-5)
    told = shop.toolchain.info.footprint(Conversion(model, f"genai:{variant}", platform()))
    assert told.disk == pytest.approx(size(shop.binary(name, variant)), rel=0.01)


@pytest.mark.slow
def test_built_again_elsewhere_the_bytes_are_the_same(shop: Workshop, tmp_path: Path) -> None:
    moved = tmp_path / "a-longer-name-of-the-folder"
    shutil.copytree(shop.folder / "int4", moved)
    again = replace(shop.toolchain, files={shop.models["int4"].weights: moved}, made={})
    made = again.convert(shop.models["int4"], "genai:int4", tmp_path / "made")
    first = contents(shop.binary("int4", "int4"))
    assert contents(made) == first
    assert sorted(first) == [
        "genai_config.json",
        "model.onnx",
        "modelbuild.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not any(str(shop.folder).encode() in content for content in first.values())


@pytest.mark.slow
def test_run_answers_a_sentence(shop: Workshop) -> None:
    tool = shop.toolchain.info.device_tool(platform())
    assert tool is not None
    binary = {"binary": shop.binary("float", "fp32")}
    words = ("climb", "to", "40", "m")
    answers = {shop.toolchain.locked.call(tool, {}, binary, {}, arguments=words) for _ in range(2)}
    assert len(answers) == 1
    with pytest.raises(ToolError, match="what is the model to answer"):
        shop.toolchain.locked.call(tool, {}, binary, {})


@pytest.mark.slow
def test_a_model_that_the_builder_does_not_know_is_refused(shop: Workshop, tmp_path: Path) -> None:
    architecture = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": VOCAB_SIZE}
    info = random_model(tmp_path / "gpt2", architecture, shop.folder / "tokenizer")
    shop.toolchain.files[info.weights] = tmp_path / "gpt2"
    with pytest.raises(ToolError, match="model builder of ONNX Runtime GenAI refuses the model"):
        shop.toolchain.convert(info, "genai:fp32", tmp_path / "made")
