"""Packages of both families: the same bytes twice, the program that is in them, damage that is noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from modelbuild.api import Conversion, Lock, PythonTool, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import tree
from tests.toolchains.coreml.test_coreml_rule import apple
from tests.toolchains.workshop import (
    LENGTH,
    WIDE_LLAMA,
    WIDE_VIT,
    BuiltModel,
    Workshop,
    largest_error,
    random_model,
    rounded_model,
    size,
)
from toolchains.coreml.rule import CoremlToolchain

pytestmark = pytest.mark.slow

IOS = apple("ios")
COMPUTE = '''
import numpy as np
from mil_evaluate import evaluate
from mil_program import read_program


def main(request):
    """What the program of a package answers to rows."""
    program = read_program(request.inputs["package"])
    rows = np.load(request.inputs["rows"])
    (name,) = program.inputs
    found = [evaluate(program, {name: rows[i : i + 1]})["logits"][0] for i in range(len(rows))]
    with request.outputs["logits"].open("wb") as stream:
        np.save(stream, np.stack(found))
'''


@pytest.fixture(scope="module")
def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(CoremlToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    folder = tmp_path_factory.mktemp("models")
    llama = random_model(folder / "llama", WIDE_LLAMA)
    vit = random_model(folder / "vit", WIDE_VIT)
    return {"llama": llama, "vit": vit, "int4": rounded_model(llama, folder / "int4")}


@pytest.fixture
def compute(tmp_path: Path) -> PythonTool:
    """A tool that only computes, beside the modules it is made of."""
    here = Path(__file__).parents[3] / "toolchains/coreml"
    for name in ("mil_program.py", "mil_evaluate.py"):
        shutil.copyfile(here / name, tmp_path / name)
    (tmp_path / "compute.py").write_text(COMPUTE)
    return PythonTool(tmp_path / "compute.py", lock=Lock(here / "requirements.lock"))


@pytest.mark.parametrize(
    ("name", "variant", "bound"),
    [
        ("llama", "fp32", 1e-5),
        ("llama", "fp16", 1e-2),
        ("vit", "fp32", 1e-5),
        ("vit", "fp16", 1e-2),
        ("int4", "fp32", 1e-5),
    ],
)
def test_the_program_answers_as_torch_does(
    toolchain: RuntimeToolchainInfo,
    shop: Workshop,
    models: dict[str, BuiltModel],
    compute: PythonTool,
    tmp_path: Path,
    name: str,
    variant: str,
    bound: float,
) -> None:
    """On other rows than those of the conversion. bound: a part of the largest logit."""
    model, format_ = models[name], f"coreml:{variant}"
    package = shop.make(toolchain, model, format_, IOS)
    np.save(tmp_path / "rows.npy", model.rows(2))
    inputs = {"package": package, "rows": tmp_path / "rows.npy"}
    found = np.load(shop.call(compute, inputs, ("logits",))["logits"])
    assert largest_error(found, model.answers(model.rows(2))) < bound
    predicted = toolchain.footprint(Conversion(model.info, format_, IOS, sequence_length=LENGTH)).disk
    assert abs(predicted - size(package)) < 0.01 * size(package)
    manifest = json.loads((package / "Manifest.json").read_text())
    assert manifest["rootModelIdentifier"] in manifest["itemInfoEntries"]
    if name != "int4":
        assert tree(package) == tree(shop.fresh().make(toolchain, model, format_, IOS))
    if (name, variant) == ("vit", "fp32"):
        damaged = tmp_path / "damaged.mlpackage"
        shutil.copytree(package, damaged)
        specification = damaged / "Data/com.apple.CoreML/model.mlmodel"
        specification.write_bytes(specification.read_bytes().replace(b"gelu", b"gemu"))
        with pytest.raises(ToolError, match="cannot be checked here"):
            shop.call(compute, {**inputs, "package": damaged}, ("logits",))
