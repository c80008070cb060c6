"""Real models through IREE's compiler and runtime, each tool in the environment of its lock."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from modelbuild.api import Conversion, Lock, PlatformInfo, PythonTool, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import ToolError
from tests.toolchains.workshop import (
    HERE,
    LENGTH,
    LLAMA,
    VIT,
    BuiltModel,
    Workshop,
    device,
    largest_error,
    random_model,
    rounded_model,
    top1_agreement,
)
from toolchains.iree import rule
from toolchains.iree.rule import IreeToolchain

pytestmark = pytest.mark.slow

FORMAT = "iree:fp32"
ROUNDING = 2e-6
"""Of the largest logit; a random Llama has 4e-7."""
CLASSIFIERS = {
    "ragged": {
        "image_size": 20,
        "patch_size": 4,
        "num_channels": 3,
        "num_labels": 47,
        "hidden_size": 36,
        "num_attention_heads": 3,
        "intermediate_size": 83,
        "num_hidden_layers": 3,
    },
    "one head": {"hidden_size": 32, "num_attention_heads": 1, "intermediate_size": 128, "num_labels": 3},
    "many tokens": {
        "image_size": 24,
        "num_channels": 3,
        "hidden_size": 64,
        "num_attention_heads": 8,
        "intermediate_size": 100,
        "num_labels": 257,
        "num_hidden_layers": 1,
        "qkv_bias": False,
    },
}
"""What differs from VIT; the code that the prediction was fitted to was of other models."""


@pytest.fixture(scope="module")
def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(IreeToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    folder = tmp_path_factory.mktemp("models")
    return {"llama": random_model(folder / "llama", LLAMA), "vit": random_model(folder / "vit", VIT)}


def asked(model: BuiltModel, platform: PlatformInfo = HERE) -> Conversion:
    return Conversion(model.info, FORMAT, platform, sequence_length=LENGTH)


@pytest.mark.parametrize("family", ["llama", "vit"])
def test_it_answers_as_torch_does(
    toolchain: RuntimeToolchainInfo, shop: Workshop, models: dict[str, BuiltModel], family: str
) -> None:
    model = models[family]
    found = shop.ask(toolchain, shop.make(toolchain, model, FORMAT), model.rows())
    assert largest_error(found, model.answers()) < ROUNDING
    assert top1_agreement(found, model.answers()) == 1


@pytest.mark.parametrize("family", ["llama", "vit"])
def test_bytes_are_the_same_from_scratch_and_the_size_is_foretold(
    toolchain: RuntimeToolchainInfo, shop: Workshop, models: dict[str, BuiltModel], family: str
) -> None:
    model, again = models[family], shop.fresh()
    for cpu in ("x86_64", "aarch64", "riscv64"):
        first, second = (
            each.make(toolchain, model, FORMAT, device(cpu)).read_bytes() for each in (shop, again)
        )
        assert first == second
        assert toolchain.footprint(asked(model, device(cpu))).disk == pytest.approx(len(first), rel=0.01)


@pytest.mark.parametrize("shape", CLASSIFIERS)
def test_the_size_of_a_small_classifier_is_told(
    toolchain: RuntimeToolchainInfo, shop: Workshop, tmp_path: Path, shape: str
) -> None:
    """Of 150 to 250 KB, widths that are no multiples of 8 among them."""
    model = random_model(tmp_path / "model", VIT | CLASSIFIERS[shape])
    for cpu in ("x86_64", "aarch64"):
        made = shop.make(toolchain, model, FORMAT, device(cpu))
        told = toolchain.footprint(asked(model, device(cpu))).disk
        assert told == pytest.approx(made.stat().st_size, rel=0.01)


def test_matrices_of_odd_widths_answer_as_torch_does(
    toolchain: RuntimeToolchainInfo, shop: Workshop, tmp_path: Path
) -> None:
    """They are padded, and so are the rows of tokens."""
    model = random_model(tmp_path / "model", VIT | CLASSIFIERS["ragged"])
    found = shop.ask(toolchain, shop.make(toolchain, model, FORMAT), model.rows())
    assert largest_error(found, model.answers()) < ROUNDING


def test_the_size_of_a_long_pass_is_told(
    toolchain: RuntimeToolchainInfo, shop: Workshop, tmp_path: Path
) -> None:
    """Of its square, IREE computes the mask ahead."""
    keys = {"model_type": "qwen3", "head_dim": 32, "vocab_size": 1003, "hidden_size": 128}
    model = random_model(tmp_path / "model", LLAMA | keys)
    made = shop.make(toolchain, model, FORMAT, length=128)
    told = toolchain.footprint(Conversion(model.info, FORMAT, HERE, sequence_length=128)).disk
    assert told == pytest.approx(made.stat().st_size, rel=0.01)


def test_a_tied_matrix_that_quantizing_untied_is_stored_once(
    toolchain: RuntimeToolchainInfo, shop: Workshop, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    model = rounded_model(models["llama"], tmp_path / "int4")
    made, parent = (shop.parts(toolchain, each, asked(each)) for each in (model, models["llama"]))
    sizes = [each["IreeImport/mlir"].stat().st_size for each in (made, parent)]
    assert abs(sizes[0] - sizes[1]) < 64 * 64  # Less than a quarter of the matrix.
    assert largest_error(shop.ask(toolchain, made[""], model.rows()), model.answers()) < ROUNDING


def test_weights_beside_the_onnx_file_are_read(
    toolchain: RuntimeToolchainInfo, shop: Workshop, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    parts = shop.parts(toolchain, models["vit"], asked(models["vit"]))
    proto = onnx.load(parts["OnnxExport/onnx"] / "model.onnx")
    (tmp_path / "onnx").mkdir()
    onnx.save(
        proto,
        tmp_path / "onnx/model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=64,
    )
    folder = Path(rule.__file__).parent
    tool = PythonTool(folder / "import_tool.py", lock=Lock(folder / "requirements.lock"))
    made = shop.call(tool, {"onnx": tmp_path / "onnx"}, ("mlir",))
    assert made["mlir"].read_bytes() == parts["IreeImport/mlir"].read_bytes()


def test_a_cpu_that_llvm_does_not_know_is_told(shop: Workshop, models: dict[str, BuiltModel]) -> None:
    other = RuleRunner().analyze(IreeToolchain, x86_64_cpu="x86-64-v9").get(RuntimeToolchainInfo)
    with pytest.raises(ToolError, match=r"cannot compile this model with .*x86-64-v9"):
        shop.make(other, models["vit"], FORMAT)


def test_a_file_that_is_no_module_is_refused(
    toolchain: RuntimeToolchainInfo, shop: Workshop, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    binary = tmp_path / "model.vmfb"
    binary.write_bytes(b"no module" * 1000)
    with pytest.raises(ToolError, match="IREE's runtime refuses the file"):
        shop.ask(toolchain, binary, models["vit"].rows())
