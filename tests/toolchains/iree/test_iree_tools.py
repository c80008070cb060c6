"""Real models through IREE's compiler and runtime, each tool in the environment of its lock."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from modelbuild.api import Conversion, Lock, PythonTool, RuntimeToolchainInfo
from modelbuild.rules.quantize import tool as quantize_tool
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import Request, ToolError
from tests.locked_tools import LockedTools
from tests.toolchains.conversions import (
    HERE,
    BuiltModel,
    Conversions,
    device,
    largest_error,
    random_model,
    top1_agreement,
)
from toolchains.iree import rule
from toolchains.iree.rule import IreeToolchain

pytestmark = pytest.mark.slow

FORMAT = "iree:fp32"
ROUNDING = 2e-6
"""Of the largest logit; a random Llama has 4e-7."""
CODE_VARIES = 64_000
"""Bytes that the code of one model is larger or smaller than that of another."""


@pytest.fixture(scope="module")
def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(IreeToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def conversions(locked: LockedTools, tmp_path_factory: pytest.TempPathFactory) -> Conversions:
    return Conversions(locked, tmp_path_factory.mktemp("iree"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    folder = tmp_path_factory.mktemp("models")
    return {family: random_model(family, folder / family) for family in ("llama", "vit")}


@pytest.mark.parametrize("family", ["llama", "vit"])
def test_it_answers_as_torch_does(
    toolchain: RuntimeToolchainInfo,
    conversions: Conversions,
    models: dict[str, BuiltModel],
    family: str,
) -> None:
    model = models[family]
    binary = conversions.make(toolchain, model, FORMAT, HERE, family)
    found = conversions.ask(toolchain, model, binary)
    assert largest_error(found, model.answers()) < ROUNDING
    assert top1_agreement(found, model.answers()) == 1


@pytest.mark.parametrize("family", ["llama", "vit"])
def test_bytes_are_the_same_from_scratch_and_the_size_is_foretold(
    toolchain: RuntimeToolchainInfo,
    conversions: Conversions,
    models: dict[str, BuiltModel],
    family: str,
) -> None:
    model = models[family]
    onnx_tree = conversions.make(toolchain, model, FORMAT, HERE, family).parent / "onnx"
    for cpu in ("x86_64", "aarch64", "riscv64"):
        made = []
        for attempt in ("first", "second"):
            name = f"{family}-{cpu}-{attempt}"
            shutil.copytree(onnx_tree, conversions.directory / name / "onnx")
            made.append(conversions.make(toolchain, model, FORMAT, device(cpu), name).read_bytes())
        assert made[0] == made[1]
        predicted = toolchain.footprint(Conversion(model.info, FORMAT, device(cpu))).disk
        assert abs(predicted - len(made[0])) < CODE_VARIES


def test_a_tied_matrix_that_quantizing_untied_is_stored_once(
    toolchain: RuntimeToolchainInfo,
    conversions: Conversions,
    models: dict[str, BuiltModel],
    tmp_path: Path,
) -> None:
    params = {"bits": 4, "group_size": 32, "symmetric": True, "observer": "minmax", "embeddings": "rtn"}
    quantize_tool.main(Request(params, {"model": models["llama"].path}, {"model": tmp_path / "int4"}))
    model = BuiltModel(tmp_path / "int4", models["llama"].info)
    binary = conversions.make(toolchain, model, FORMAT, HERE, "int4")
    parent = conversions.make(toolchain, models["llama"], FORMAT, HERE, "llama")
    sizes = [each.with_name("model.mlirbc").stat().st_size for each in (binary, parent)]
    assert abs(sizes[0] - sizes[1]) < 64 * 64  # A quarter of the matrix.
    assert largest_error(conversions.ask(toolchain, model, binary), model.answers()) < ROUNDING


def test_weights_beside_the_onnx_file_are_read(
    toolchain: RuntimeToolchainInfo,
    conversions: Conversions,
    models: dict[str, BuiltModel],
    tmp_path: Path,
) -> None:
    binary = conversions.make(toolchain, models["vit"], FORMAT, HERE, "vit")
    proto = onnx.load(binary.parent / "onnx/model.onnx")
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
    out = tmp_path / "model.mlirbc"
    conversions.locked.call(tool, {}, {"onnx": tmp_path / "onnx"}, {"mlir": out})
    assert out.read_bytes() == binary.with_name("model.mlirbc").read_bytes()


def test_a_cpu_that_llvm_does_not_know_is_told(
    conversions: Conversions, toolchain: RuntimeToolchainInfo, models: dict[str, BuiltModel]
) -> None:
    binary = conversions.make(toolchain, models["vit"], FORMAT, HERE, "vit")
    other = RuleRunner().analyze(IreeToolchain, x86_64_cpu="x86-64-v9").get(RuntimeToolchainInfo)
    out = conversions.directory / "v9"
    out.mkdir()
    shutil.copytree(binary.parent / "onnx", out / "onnx")
    with pytest.raises(ToolError, match=r"cannot compile this model with .*x86-64-v9"):
        conversions.make(other, models["vit"], FORMAT, HERE, "v9")


def test_a_file_that_is_no_module_is_refused(
    conversions: Conversions, toolchain: RuntimeToolchainInfo, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    binary = tmp_path / "model.vmfb"
    binary.write_bytes(b"no module" * 1000)
    with pytest.raises(ToolError, match="IREE's runtime refuses the file"):
        conversions.ask(toolchain, models["vit"], binary)
