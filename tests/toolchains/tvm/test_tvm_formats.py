"""Real models through TVM's compiler and runtime, each tool in the environment of its lock."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from modelbuild.api import (
    Artifact,
    Conversion,
    DefaultInfo,
    Lock,
    ModelInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.packed_weights import read_tensors, split_packed
from modelbuild.toolkit.request import ToolError
from tests.locked_tools import ROOT, LockedTools
from tests.toolchains.conversions import HERE, device
from tests.toolchains.converted import (
    TOKENS,
    convert,
    device_logits,
    probes,
    random_llama,
    random_vit,
    rounded,
    size,
    torch_logits,
)
from toolchains.tvm import rule
from toolchains.tvm.layers import pack_columns
from toolchains.tvm.rule import TvmToolchain

pytestmark = pytest.mark.slow

FOLDER = Path(rule.__file__).parent
SOURCES = sorted((FOLDER / "runtime").iterdir())
ROUNDING = 3e-6
"""Of the largest logit; the order of sums is another one."""
TINY = 13_000
"""Bytes that the code of a model is larger or smaller than foretold: 1 % of all but tiny models."""
VIT = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 4,
    "num_channels": 3,
    "num_labels": 100,
}
FORMATS = ["tvm:fp32", "tvm:int8", "tvm:int4"]
FAMILIES = ["llama", "vit"]


@dataclass(frozen=True)
class Models:
    """Models of both families, as floats and packed, and what was made of them."""

    locked: LockedTools
    folder: Path
    infos: dict[str, ModelInfo]

    def source(self, family: str, format_: str) -> str:
        """The model that a format is made of."""
        return family + format_.removeprefix("tvm:").replace("fp32", "")

    def library(self, family: str, format_: str, cpu: str = "x86_64") -> Path:
        """The library, made once; the runtime that lies beside it on some devices is not."""
        name = self.source(family, format_)
        conversion = Conversion(self.infos[name], format_, device(cpu), sequence_length=TOKENS)
        imported, compiled, *_ = RuleRunner().convert(toolchain(), conversion).actions
        module, library = self.folder / f"{name}.json", self.folder / f"{name}-{cpu}.so"
        for action, given, made in (
            (imported, {"model": self.folder / name}, {"module": module}),
            (compiled, {"module": module}, {"library": library}),
        ):
            if not all(path.exists() for path in made.values()):
                assert isinstance(action.tool, PythonTool)
                self.locked.call(action.tool, action.params, given, made)
        return library


def toolchain() -> RuntimeToolchainInfo:
    runner = RuleRunner()
    sources = tuple(Artifact(str(path), "source") for path in SOURCES)
    runner.provide("//toolchains/tvm:runtime_sources", DefaultInfo(sources))
    return runner.analyze(TvmToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def models(locked: LockedTools, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("tvm")
    infos = {
        "llama": random_llama(text, folder / "llama"),
        "vit": random_vit(folder / "vit", **VIT),
        "tiny": random_vit(folder / "tiny", hidden_size=48, intermediate_size=64),
    }
    for family in FAMILIES:
        for bits, group in ((8, 0), (4, 32)):
            name = f"{family}int{bits}"
            infos[name] = rounded(infos[family], folder / family, folder / name, bits=bits, group_size=group)
    return Models(locked, folder, infos)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_as_torch_does(models: Models, family: str, format_: str, tmp_path: Path) -> None:
    name = models.source(family, format_)
    rows = probes(models.infos[name], tmp_path / "probes")
    expected = torch_logits(models.infos[name], models.folder / name, rows)
    tool = toolchain().device_tool(HERE)
    library = models.library(family, format_)
    found = device_logits(models.locked, tool, library, tmp_path / "probes", tmp_path / "out")
    assert np.abs(found - expected).max() <= ROUNDING * np.abs(expected).max()
    assert (found.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_foretold(models: Models, family: str, format_: str) -> None:
    info = models.infos[models.source(family, format_)]
    for cpu in ("x86_64", "aarch64", "armv7", "riscv64"):
        footprint = toolchain().footprint(Conversion(info, format_, device(cpu)))
        library = footprint.disk - footprint.detail.get("runtime", 0)
        made = size(models.library(family, format_, cpu))
        assert abs(library - made) <= 0.01 * made, (cpu, library, made)


def test_the_code_of_a_tiny_model_is_not_foretold_to_the_percent(models: Models) -> None:
    footprint = toolchain().footprint(Conversion(models.infos["tiny"], "tvm:fp32", HERE))
    assert abs(footprint.disk - size(models.library("tiny", "tvm:fp32"))) < TINY


@pytest.mark.parametrize(("family", "format_"), [("llama", "tvm:int4"), ("vit", "tvm:int8")])
def test_the_codes_of_the_checkpoint_are_in_the_library(models: Models, family: str, format_: str) -> None:
    name = models.source(family, format_)
    packed, _ = split_packed(read_tensors(models.folder / name), int(format_[-1]))
    library = models.library(family, format_).read_bytes()
    assert packed
    for weight in packed.values():
        assert pack_columns(weight).numpy().tobytes() in library


@pytest.mark.parametrize(("family", "format_"), [("llama", "tvm:int4"), ("vit", "tvm:fp32")])
def test_bytes_are_the_same_from_another_folder(
    models: Models, family: str, format_: str, tmp_path: Path
) -> None:
    name = models.source(family, format_)
    shutil.copytree(models.folder / name, tmp_path / "elsewhere")
    again = convert(
        models.locked,
        toolchain(),
        models.infos[name],
        tmp_path / "elsewhere",
        format_,
        tmp_path / "out",
        HERE,
    )
    first = models.library(family, format_)
    assert again.read_bytes() == first.read_bytes()
    assert again.with_name("module.json").read_bytes() == (models.folder / f"{name}.json").read_bytes()


def test_asymmetric_weights_keep_their_zero_points(models: Models, tmp_path: Path) -> None:
    changed = {"bits": 4, "group_size": 32, "symmetric": False, "embeddings": "float"}
    info = rounded(models.infos["llama"], models.folder / "llama", tmp_path / "model", **changed)
    library = convert(
        models.locked, toolchain(), info, tmp_path / "model", "tvm:int4", tmp_path / "out", HERE
    )
    rows = probes(info, tmp_path / "probes")
    expected = torch_logits(info, tmp_path / "model", rows)
    tool = toolchain().device_tool(HERE)
    found = device_logits(models.locked, tool, library, tmp_path / "probes", tmp_path / "answers")
    assert np.abs(found - expected).max() <= ROUNDING * np.abs(expected).max()
    predicted = toolchain().footprint(Conversion(info, "tvm:int4", HERE)).disk
    assert abs(predicted - size(library)) <= 0.01 * size(library)


def test_weights_of_another_width_are_refused_by_the_tool_too(models: Models, tmp_path: Path) -> None:
    tool = PythonTool(FOLDER / "import_tool.py", lock=Lock(FOLDER / "requirements-import.lock"))
    params = {"format": "tvm:int8", "task": "language_model", "sequence_length": 8}
    with pytest.raises(ToolError, match="takes 8-bit weights, and the model has 4-bit weights"):
        models.locked.call(
            tool, params, {"model": models.folder / "llamaint4"}, {"module": tmp_path / "module.json"}
        )


def test_rows_of_another_length_are_refused(models: Models, tmp_path: Path) -> None:
    rows = probes(models.infos["llama"], tmp_path / "probes")
    np.save(tmp_path / "probes/inputs.npy", rows[:, :-1])
    tool = toolchain().device_tool(HERE)
    library = models.library("llama", "tvm:fp32")
    with pytest.raises(ToolError, match="takes rows of shape"):
        device_logits(models.locked, tool, library, tmp_path / "probes", tmp_path / "out")


def test_a_person_may_type_tokens(models: Models) -> None:
    tool = toolchain().device_tool(HERE)
    assert tool is not None
    binary = {"binary": models.library("llama", "tvm:fp32")}
    answer = models.locked.call(tool, {}, binary, {}, arguments=("1", "7", "9"))
    assert len(answer.splitlines()) == 5
    assert answer.splitlines()[0].endswith("%")


MEASURE = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import device_tool
import numpy as np

def resident():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmRSS"].split()[0]) * 1024

before = resident()
model = device_tool.open_model(Path(sys.argv[3]))
model(np.zeros(model.shape))
print(resident() - before)
"""


@pytest.mark.parametrize("format_", ["tvm:fp32", "tvm:int4"])
def test_memory_is_what_was_predicted(models: Models, format_: str, tmp_path: Path) -> None:
    """No more than that, and not much less; Python and its modules left out."""
    tool = toolchain().device_tool(HERE)
    assert tool is not None
    (tmp_path / "home").mkdir()
    library = str(models.library("llama", format_))
    done = models.locked.run(tool, ["-c", MEASURE, str(ROOT), str(FOLDER), library], tmp_path)
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout)
    predicted = (
        toolchain().footprint(Conversion(models.infos[models.source("llama", format_)], format_, HERE)).ram
    )
    assert measured <= predicted < 2 * measured, (predicted, measured)


@pytest.mark.timeout(1500)
def test_a_runtime_is_the_same_wherever_it_is_built(models: Models, tmp_path: Path) -> None:
    tool = PythonTool(FOLDER / "runtime_tool.py", lock=Lock(FOLDER / "requirements.lock"))
    inputs = {path.name: path for path in SOURCES}
    made = []
    for name in ("one", "other"):  # Each in a directory of its own.
        library = tmp_path / f"{name}.so"
        models.locked.call(tool, {"cpu": "armv7"}, inputs, {"library": library})
        made.append(library.read_bytes())
    assert made[0] == made[1]
    assert b"site-packages" not in made[0]
    assert str(tmp_path.parents[1]).encode() not in made[0]
    predicted = (
        toolchain()
        .footprint(Conversion(models.infos["llama"], "tvm:fp32", device("armv7")))
        .detail["runtime"]
    )
    assert abs(predicted - len(made[0])) <= 0.01 * len(made[0])
