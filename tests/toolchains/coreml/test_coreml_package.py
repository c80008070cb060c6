"""Packages of both families: the same bytes twice, the program that is in them, damage that is noticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from modelbuild.api import Conversion, Lock, ModelInfo, PythonTool, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import ToolError
from tests.locked_tools import LockedTools
from tests.tiny_text import tree
from tests.toolchains.converted import convert, probes, random_llama, random_vit, rounded, size, torch_logits
from tests.toolchains.coreml.test_coreml_rule import apple
from toolchains.coreml.rule import CoremlToolchain

pytestmark = pytest.mark.slow

IOS = apple("ios")
COMPUTE = '''
import numpy as np
from mil_evaluate import evaluate
from mil_program import read_program


def main(request):
    """What the program of a package answers to probes."""
    program = read_program(request.inputs["package"])
    rows = np.load(request.inputs["probes"] / "inputs.npy")
    (name,) = program.inputs
    found = [evaluate(program, {name: rows[i : i + 1]})["logits"][0] for i in range(len(rows))]
    np.save(request.outputs["logits"], np.stack(found))
'''


@pytest.fixture(scope="module")
def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(CoremlToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def models(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ModelInfo, Path]]:
    folder = tmp_path_factory.mktemp("models")
    llama, vit = random_llama(text, folder / "llama"), random_vit(folder / "vit")
    int4 = rounded(llama, folder / "llama", folder / "int4")
    return {name: (info, folder / name) for name, info in (("llama", llama), ("vit", vit), ("int4", int4))}


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
    locked: LockedTools,
    toolchain: RuntimeToolchainInfo,
    models: dict[str, tuple[ModelInfo, Path]],
    compute: PythonTool,
    tmp_path: Path,
    name: str,
    variant: str,
    bound: float,
) -> None:
    """On other rows than those of the conversion. bound: a part of the largest logit."""
    info, model = models[name]
    package = convert(locked, toolchain, info, model, f"coreml:{variant}", tmp_path / "made", IOS)
    rows = probes(info, tmp_path / "probes", 2)
    inputs = {"package": package, "probes": tmp_path / "probes"}
    locked.call(compute, {}, inputs, {"logits": tmp_path / "logits.npy"})
    found, expected = np.load(tmp_path / "logits.npy"), torch_logits(info, model, rows)
    assert np.abs(found - expected).max() < bound * np.abs(expected).max()
    predicted = toolchain.footprint(Conversion(info, f"coreml:{variant}", IOS)).disk
    assert abs(predicted - size(package)) < 0.01 * size(package)
    manifest = json.loads((package / "Manifest.json").read_text())
    assert manifest["rootModelIdentifier"] in manifest["itemInfoEntries"]
    if name != "int4":
        again = convert(locked, toolchain, info, model, f"coreml:{variant}", tmp_path / "again", IOS)
        assert tree(package) == tree(again)
    if (name, variant) == ("vit", "fp32"):
        specification = package / "Data/com.apple.CoreML/model.mlmodel"
        specification.write_bytes(specification.read_bytes().replace(b"gelu", b"relu"))
        with pytest.raises(ToolError, match="cannot be checked here"):
            locked.call(compute, {}, inputs, {"logits": tmp_path / "logits2.npy"})
