import re
from typing import Any

import pytest

from modelbuild import provider
from modelbuild.api import (
    Artifact,
    Budget,
    Conversion,
    DatasetInfo,
    DeviceBinaryInfo,
    Label,
    ModelInfo,
    PlatformInfo,
    RuntimeToolchainInfo,
    TokenizerInfo,
)
from modelbuild.errors import ModelbuildError
from modelbuild.platform import CPU, OS
from modelbuild.runner import LOCAL, Runner
from modelbuild.testing import RuleRunner
from tests.toolchains.gguf.maker import ARCHITECTURE, HOST, convert
from tests.toolchains.workshop import DATA
from toolchains.gguf.rule import Imatrix, LlamaCppToolchain, TokenizerParityTest

INT4 = {"scheme": "gptq", "bits": 4, "group_size": 32, "symmetric": True, "embeddings": "rtn"}
TREE = Artifact("pkg/m/model", "tree")


def platform(cpu: str, system: str = "linux", runner: Runner | None = None, **budget: Any) -> PlatformInfo:
    constraints = {CPU: Label("platforms", "cpu", cpu), OS: Label("platforms", "os", system)}
    return PlatformInfo(Label("", "p", cpu), constraints, Budget(**budget), runner)


def model(**changed: Any) -> ModelInfo:
    return ModelInfo(**{"weights": TREE, "task": "text_generation", "architecture": ARCHITECTURE, **changed})


def toolchain(**attributes: Any) -> RuntimeToolchainInfo:
    return RuleRunner().analyze(LlamaCppToolchain, **attributes).get(RuntimeToolchainInfo)


def refusal(kind: str, where: PlatformInfo = HOST, allow: bool = False, **changed: Any) -> str:
    return toolchain(allow_requantize=allow).refusal(Conversion(model(**changed), f"gguf:{kind}", where))


def narrow(**widths: Any) -> dict[str, Any]:
    return {"architecture": ARCHITECTURE | widths}


def test_every_kind_is_offered_and_taken() -> None:
    info = toolchain()
    assert info.runtime == "llama.cpp"
    assert info.formats[0] == "gguf:auto"
    assert len(info.formats) == 13
    assert not any(info.refusal(Conversion(model(), each, HOST)) for each in info.formats)


@pytest.mark.parametrize(
    ("kind", "changed", "reason"),
    [
        (
            "Q4_K_M",
            narrow(hidden_size=320),
            "blocks of 256 weights, and rows of `model.layers.0.self_attn.q_proj.weight` are 320",
        ),
        ("Q4_K_M", narrow(intermediate_size=384), r"`model.layers.0.mlp.down_proj.weight` are 384 wide"),
        ("TQ1_0", narrow(intermediate_size=96), "blocks of 256"),
        ("Q4_0", narrow(intermediate_size=100), "blocks of 32 weights, and rows of .* are 100 wide"),
        ("Q8_0", narrow(head_dim=6), "rows of `model.layers.0.self_attn.o_proj.weight` are 48 wide"),
        ("IQ2_XXS", {}, "this toolchain makes gguf:auto, "),
        (
            "Q4_0",
            {"task": "image_classification"},
            "holds language models here, and this one is for image_class",
        ),
        ("F16", narrow(model_type="gpt2"), "a model of type `gpt2` is not written"),
        (
            "F16",
            {"architecture": ARCHITECTURE | {"rope_parameters": {"rope_type": "yarn"}}},
            "of type `yarn`",
        ),
        ("F16", {"architecture": ARCHITECTURE | {"hidden_act": "gelu"}}, "activation is `gelu`"),
        ("Q4_K_M", {"quantization": INT4}, "a second time: its 4-bit weights are Q4_0"),
        ("F16", {"quantization": INT4}, "a second time: its 4-bit weights are Q4_0"),
        ("auto", {"quantization": INT4 | {"symmetric": False}}, "a second time: its weights are asymmetric"),
        (
            "auto",
            {"quantization": INT4 | {"group_size": 16}},
            "groups of 16 weights are not made of blocks of 32",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_at_analysis(kind: str, changed: dict[str, Any], reason: str) -> None:
    assert re.search(reason, refusal(kind, **changed))


def test_blocks_of_32_fit_where_blocks_of_256_do_not() -> None:
    widths = narrow(hidden_size=128, intermediate_size=384, num_attention_heads=4)
    assert not refusal("Q4_0", **widths)
    assert not refusal("Q8_0", **widths)
    assert refusal("Q6_K", **widths)


def test_a_second_rounding_can_be_allowed() -> None:
    assert not refusal("Q4_K_M", allow=True, quantization=INT4)
    assert not refusal("Q4_0", quantization=INT4)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (platform("s390x"), "little-endian"),
        (platform("armv7e-m", "none"), "needs an operating system"),
        (platform("riscv64"), "^$"),
        (platform("armv7"), "^$"),
    ],
)
def test_devices(where: PlatformInfo, reason: str) -> None:
    assert re.search(reason, refusal("Q4_0", where))


@pytest.mark.parametrize(
    ("changed", "format_"),
    [
        ({}, "gguf:F32"),
        ({"dtype": "float16"}, "gguf:F16"),
        ({"dtype": "bfloat16"}, "gguf:F32"),
        ({"quantization": INT4}, "gguf:Q4_0"),
        ({"quantization": INT4 | {"bits": 8, "group_size": 0}}, "gguf:Q8_0"),
    ],
)
def test_auto_loses_nothing(changed: dict[str, Any], format_: str) -> None:
    target = convert(toolchain(), model(**changed), "auto")
    assert target.get(DeviceBinaryInfo).format == format_
    assert target.action.params["kind"] == format_.removeprefix("gguf:")


def test_embeddings_that_stayed_floats_stay_so() -> None:
    types = convert(toolchain(), model(quantization=INT4 | {"embeddings": "float"}), "auto").action.params[
        "types"
    ]
    assert types["model.embed_tokens.weight"] == "F32"
    assert types["model.layers.3.mlp.down_proj.weight"] == "Q4_0"


def test_one_importance_matrix_is_shared_by_all_kinds_and_by_the_rule() -> None:
    runner = RuleRunner()
    runner.provide(":model", model())
    runner.provide(":data", DATA)
    alone = runner.analyze(Imatrix, model=":model", dataset=":data").action
    for kind in ("Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "Q4_0", "Q4_1"):
        matrix, conversion = convert(toolchain(), model(), kind, DATA).actions
        assert conversion.inputs["in/imatrix"] == matrix.outputs["out/imatrix"]
        # All that is in the key; the outputs lie in other places, under the same names.
        assert (matrix.tool, matrix.params, matrix.inputs, matrix.threads, matrix.platform) == (
            alone.tool,
            alone.params,
            alone.inputs,
            alone.threads,
            alone.platform,
        )
        assert set(matrix.outputs) == set(alone.outputs)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "TQ2_0"])
def test_a_kind_that_ignores_an_importance_matrix_measures_none(kind: str) -> None:
    target = convert(toolchain(), model(), kind, DATA)
    assert [action.mnemonic for action in target.actions] == ["GgufConvert"]


def test_calibration_needs_its_split_and_its_task() -> None:
    other = DatasetInfo(Artifact("other", "tree"), ("train",), "text_generation")
    with pytest.raises(ModelbuildError, match="no split `calibration`"):
        convert(toolchain(), model(), "Q2_K", other)
    runner = RuleRunner()
    runner.provide(":model", model(task="language_modeling"))
    runner.provide(":data", DATA)
    with pytest.raises(ModelbuildError, match="is for `text_generation`, the model for `language_modeling`"):
        runner.analyze(Imatrix, model=":model", dataset=":data")


def test_nothing_of_the_device_is_in_the_key() -> None:
    action = convert(toolchain(), model(), "Q4_K_M").action
    assert action.platform == ()
    assert set(action.params) == {"kind", "types", "allow_requantize", "licence"}


def test_memory_is_weights_and_cache_and_library() -> None:
    small = toolchain().footprint(Conversion(model(), "gguf:Q4_K_M", platform("aarch64", context_length=100)))
    large = toolchain().footprint(
        Conversion(model(), "gguf:Q4_K_M", platform("aarch64", context_length=131_072))
    )
    unstated = toolchain().footprint(Conversion(model(), "gguf:Q4_K_M", platform("aarch64")))
    assert small.kv_cache == 2 * 4 * 256 * 128 * 2  # 256 cells, the least; keys and values, layers, F16.
    assert (
        large.kv_cache == 2 * 4 * 131_072 * 128 * 2
    )  # What the platform asks for, whatever the model knows.
    assert unstated.kv_cache == 2 * 4 * 2048 * 128 * 2  # As many as the model was made for.
    assert small.weights == large.weights
    assert 16 << 20 < small.runtime < large.runtime
    assert small.ram == small.weights + small.kv_cache + small.runtime


@pytest.mark.parametrize(
    ("where", "lock", "wheels"),
    [
        (platform("x86_64", runner=LOCAL), "requirements-runtime.lock", ""),
        (platform("aarch64", runner=LOCAL), "requirements-aarch64.lock", ""),
        (
            platform("aarch64", runner=Runner("qemu-user", "aarch64")),
            "requirements-aarch64.lock",
            "aarch64-manylinux_2_28",
        ),
    ],
)
def test_the_device_tool_runs_in_wheels_of_the_device(where: PlatformInfo, lock: str, wheels: str) -> None:
    tool = toolchain().device_tool(where)
    assert tool is not None
    assert tool.lock is not None
    assert (tool.lock.path.name, tool.lock.platform) == (lock, wheels)


@pytest.mark.parametrize(
    "where", [platform("riscv64"), platform("x86_64", "windows"), platform("aarch64", "ios")]
)
def test_elsewhere_there_is_no_library_to_call(where: PlatformInfo) -> None:
    assert toolchain().device_tool(where) is None


def test_tokenizer_parity_is_a_test_with_our_corpus() -> None:
    runner = RuleRunner()
    probes = runner.source("//toolchains/gguf:probes.jsonl")
    tokenizer = Artifact("t", "tree")
    runner.provide(":tokenizer", TokenizerInfo(tokenizer, 512))
    target = runner.analyze(TokenizerParityTest, name="parity_test", tokenizer=":tokenizer")
    assert target.action.inputs == {"in/tokenizer": tokenizer, "in/probes": probes}
    assert target.get(provider.TestInfo).verdict == target.action.outputs["out/verdict"]
    runner.provide(":onnx", DeviceBinaryInfo(Artifact("m.onnx", "file"), "onnx:fp32", "onnxruntime"))
    with pytest.raises(ModelbuildError, match="is for onnxruntime, not for"):
        runner.analyze(TokenizerParityTest, name="a_test", tokenizer=":tokenizer", binary=":onnx")
