"""GenAI folders of small models: built, loaded by ONNX Runtime GenAI, compared with torch, sized, built again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from tests.tiny_text import VOCAB_SIZE, tree
from tests.toolchains.workshop import (
    HERE,
    LLAMA,
    BuiltModel,
    Workshop,
    device,
    gptq_model,
    largest_error,
    random_model,
    rounded_model,
    size,
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
        (replace(TEXT, task="image_classification"), "genai:fp32", HERE, "takes language models"),
        (TEXT, "genai:fp32", device("wasm32", "emscripten"), "no ONNX Runtime GenAI for `wasm32`"),
        (TEXT, "genai:fp32", device("aarch64", "ios"), "no ONNX Runtime GenAI for `aarch64` with `ios`"),
        (replace(TEXT, quantization=INT4), "genai:int8", HERE, "4-bit weights are not `genai:int8`"),
        (replace(TEXT, format="exl3"), "genai:int4", HERE, "weights stored as `exl3`"),
        (
            replace(TEXT, architecture={"model_type": "gpt2"}),
            "genai:fp32",
            HERE,
            "of type `gpt2` are not known",
        ),
        (
            replace(TEXT, architecture=LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}),
            "genai:fp32",
            HERE,
            "leaves out a rotary embedding of type `linear`",
        ),
        (
            replace(TEXT, architecture=LLAMA | {"model_type": "mistral", "max_position_embeddings": 8192}),
            "genai:fp32",
            HERE,
            "the model has one of 4096 tokens",
        ),
        (
            replace(TEXT, architecture=LLAMA | {"head_dim": 24}),
            "genai:fp32",
            HERE,
            "its heads are 24 numbers wide, and GenAI takes multiples of 16",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(model: ModelInfo, format_: str, where: Any, reason: str) -> None:
    assert reason in toolchain().refusal(Conversion(model, format_, where))


def test_one_action_with_nothing_of_the_device() -> None:
    info = toolchain()
    assert info.formats == ("genai:fp32", "genai:int8", "genai:int4")
    assert not info.refusal(Conversion(replace(TEXT, quantization=INT4), "genai:int4", HERE))
    ctx = Context(Label("", "pkg", "binary"))
    binary = info.convert(ctx, Conversion(TEXT, "genai:int4", HERE))
    (action,) = ctx.actions
    assert dict(action.params) == {"variant": "int4"}
    assert dict(action.inputs) == {"in/model": TEXT.weights}
    assert (binary.format, binary.runtime) == ("genai:int4", "onnxruntime-genai")
    for tool in (action.tool, info.device_tool(HERE)):
        assert isinstance(tool, PythonTool)
        assert tool.lock is not None
        assert tool.lock.path.is_file()
    assert info.device_tool(device("aarch64", "macos")) is None


def test_the_cache_is_as_long_as_the_device_needs() -> None:
    short = replace(HERE, budget=Budget(context_length=256))
    caches = [
        toolchain().footprint(Conversion(TEXT, "genai:fp32", where)).kv_cache for where in (HERE, short)
    ]
    assert caches == [2 * 2 * 32 * 2048 * 4, 2 * 2 * 32 * 256 * 4]


@pytest.fixture(scope="module")
def models(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    folder = tmp_path_factory.mktemp("models")
    floats = random_model(folder / "float", LLAMA, text / "tokenizer")
    symmetric = rounded_model(floats, folder / "symmetric")
    return {
        "float": floats,
        "confusing": random_model(folder / "confusing", CONFUSING, text / "tokenizer"),
        "int4": rounded_model(floats, folder / "int4", symmetric=False),
        "gptq": gptq_model(symmetric, folder / "gptq"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant"),
    [("float", "fp32"), ("float", "int8"), ("confusing", "fp32"), ("int4", "int4"), ("gptq", "int4")],
)
def test_genai_answers_as_torch(
    shop: Workshop, models: dict[str, BuiltModel], name: str, variant: str
) -> None:
    model = models[name]
    made = shop.make(toolchain(), model, f"genai:{variant}")
    answer = shop.ask(toolchain(), made, model.rows())
    # int4: the checkpoint's own integers, so that nothing is lost.
    assert largest_error(answer, model.answers()) < (0.06 if variant == "int8" else 1e-5)
    told = toolchain().footprint(Conversion(model.info, f"genai:{variant}", HERE))
    assert told.disk == pytest.approx(size(made), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "variant"),
    [
        ({"model_type": "qwen3", "head_dim": 32, "attention_bias": True}, "int8"),
        ({"model_type": "qwen2", "tie_word_embeddings": False}, "fp32"),
    ],
)
def test_norms_and_biases_of_queries_and_keys_are_counted(
    shop: Workshop, text: Path, tmp_path: Path, keys: dict[str, Any], variant: str
) -> None:
    # Rotary tables of fewer positions, which would hide what is missed.
    model = random_model(
        tmp_path / "model", LLAMA | keys | {"max_position_embeddings": 64}, text / "tokenizer"
    )
    asked = Conversion(model.info, f"genai:{variant}", HERE)
    made = shop.make(toolchain(), model, asked.format)
    assert toolchain().footprint(asked).disk == pytest.approx(size(made), rel=0.005)


@pytest.mark.slow
def test_built_again_elsewhere_the_bytes_are_the_same(
    shop: Workshop, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    moved = tmp_path / "a-longer-name-of-the-folder"
    shutil.copytree(models["int4"].path, moved)
    first = tree(shop.make(toolchain(), models["int4"], "genai:int4"))
    again = shop.fresh().make(toolchain(), BuiltModel(moved, models["int4"].info), "genai:int4")
    assert tree(again) == first
    assert sorted(first) == [
        "genai_config.json",
        "model.onnx",
        "modelbuild.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not any(str(shop.directory).encode() in content for content in first.values())


@pytest.mark.slow
def test_run_answers_a_sentence(
    shop: Workshop, models: dict[str, BuiltModel], capsys: pytest.CaptureFixture[str]
) -> None:
    tool = toolchain().device_tool(HERE)
    assert tool is not None
    binary = {"binary": shop.make(toolchain(), models["float"], "genai:fp32")}
    answers = set()
    for _ in range(2):
        capsys.readouterr()
        shop.call(tool, binary, arguments=("climb", "to", "40", "m"))
        answers.add(capsys.readouterr().out)
    assert len(answers) == 1
    with pytest.raises(ToolError, match="what is the model to answer"):
        shop.call(tool, binary)


@pytest.mark.slow
def test_a_model_that_the_builder_does_not_know_is_refused(
    shop: Workshop, text: Path, tmp_path: Path
) -> None:
    architecture = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": VOCAB_SIZE}
    model = random_model(tmp_path / "gpt2", architecture, text / "tokenizer")
    ctx = Context(Label("", "pkg", "binary"))
    toolchain().convert(ctx, Conversion(model.info, "genai:fp32", HERE))
    (action,) = ctx.actions
    assert isinstance(action.tool, PythonTool)
    with pytest.raises(ToolError, match="model builder of ONNX Runtime GenAI refuses the model"):
        shop.call(action.tool, {"model": model.path}, ("genai",), params=dict(action.params))
