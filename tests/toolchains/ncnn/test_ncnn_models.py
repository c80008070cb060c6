"""Models of both families through pnnx and ncnn, each in its own environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from modelbuild.api import Conversion, ModelInfo, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import ToolError
from tests.locked_tools import LockedTools
from tests.tiny_text import tree
from tests.toolchains.converted import (
    HOST,
    convert,
    device_logits,
    probes,
    random_llama,
    random_vit,
    rounded,
    size,
    torch_logits,
)
from toolchains.ncnn.rule import NcnnToolchain

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """A model and what torch answers to its probes."""

    info: ModelInfo
    model: Path
    probes: Path
    logits: npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(NcnnToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def done() -> dict[str, dict[str, Path]]:
    """Formats of one model share its conversion."""
    return {}


@pytest.fixture(scope="module")
def cases(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("models")
    llama = random_llama(text, folder / "llama")
    untied = random_llama(text, folder / "untied", tie_word_embeddings=False)
    vit = random_vit(folder / "vit")
    infos = {
        "llama": llama,
        "untied": untied,
        "vit": vit,
        "llama-int4": rounded(llama, folder / "llama", folder / "llama-int4"),
        "vit-int4": rounded(vit, folder / "vit", folder / "vit-int4"),
        "vit-int8": rounded(vit, folder / "vit", folder / "vit-int8", bits=8, group_size=0),
    }
    found = {}
    for name, info in infos.items():
        rows = probes(info, folder / f"{name}-probes")
        logits = torch_logits(info, folder / name, rows)
        found[name] = Case(info, folder / name, folder / f"{name}-probes", logits)
    return found


@pytest.mark.parametrize(
    ("name", "variant", "like", "bound"),
    [
        ("llama", "fp32", "llama", 1e-5),
        ("llama", "fp16", "llama", 2e-3),
        ("llama", "int8", "llama", 5e-2),
        ("llama", "int4", "llama-int4", 1e-5),  # What it rounds is what the rule `quantize` rounds.
        ("llama-int4", "int4", "llama-int4", 1e-5),
        ("llama-int4", "int8", "llama-int4", 5e-2),
        ("untied", "fp32", "untied", 1e-5),
        ("vit", "fp32", "vit", 1e-5),
        ("vit", "fp16", "vit", 2e-3),
        ("vit", "int8", "vit", 5e-2),
        ("vit", "int4", "vit-int4", 1e-5),
        ("vit-int4", "int4", "vit-int4", 1e-5),
        ("vit-int8", "int8", "vit-int8", 5e-2),
    ],
)
def test_ncnn_answers_as_torch_does(
    locked: LockedTools,
    toolchain: RuntimeToolchainInfo,
    cases: dict[str, Case],
    tmp_path: Path,
    done: dict[str, dict[str, Path]],
    name: str,
    variant: str,
    like: str,
    bound: float,
) -> None:
    """like: the model whose weights ncnn should have. bound: of a difference, as a part of the largest logit."""
    case, expected = cases[name], cases[like].logits
    made = convert(locked, toolchain, case.info, case.model, f"ncnn:{variant}", tmp_path / "made", done=done)
    tool = toolchain.device_tool(HOST)
    found = device_logits(locked, tool, made, case.probes, tmp_path / "run")
    assert np.abs(found - expected).max() < bound * np.abs(expected).max()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= (0.9 if variant == "int8" else 0.99)
    predicted = toolchain.footprint(Conversion(case.info, f"ncnn:{variant}", HOST)).disk
    assert abs(predicted - size(made)) < 0.01 * size(made)
    if name in ("llama", "vit") and variant == "int4":
        again = convert(locked, toolchain, case.info, case.model, f"ncnn:{variant}", tmp_path / "again")
        assert tree(made) == tree(again)


def test_rows_of_another_width_are_refused(
    locked: LockedTools, toolchain: RuntimeToolchainInfo, cases: dict[str, Case], tmp_path: Path
) -> None:
    case = cases["vit"]
    made = convert(locked, toolchain, case.info, case.model, "ncnn:fp32", tmp_path / "made")
    tool = toolchain.device_tool(HOST)
    with pytest.raises(ToolError, match="takes rows of shape"):
        device_logits(locked, tool, made, cases["llama"].probes, tmp_path / "run")
