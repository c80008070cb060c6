"""The device tool, in the environment of its lock."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from modelbuild.api import Budget, Conversion, PlatformInfo, PythonTool
from modelbuild.label import Label
from modelbuild.platform import CPU, OS
from modelbuild.runner import LOCAL
from modelbuild.toolkit.llama_cpp import LlamaCpp
from modelbuild.toolkit.request import ToolError
from tests.toolchains.conftest import ROOT, LockedTools
from tests.toolchains.gguf.maker import Maker, random_model

X86_64 = PlatformInfo(
    Label("", "", "here"),
    {CPU: Label("platforms", "cpu", "x86_64"), OS: Label("platforms", "os", "linux")},
    runner=LOCAL,
)
ROWS = np.array([[1, *range(20, 51)], [1, 60, 61, *([0] * 29)]], dtype=np.int64)


@pytest.fixture(scope="module")
def maker(text: Path, tmp_path_factory: pytest.TempPathFactory, locked: LockedTools) -> Maker:
    folder = tmp_path_factory.mktemp("device")
    return Maker(locked, *random_model(text, folder / "model", num_hidden_layers=2))


@pytest.fixture(scope="module")
def binary(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maker.make("Q4_K_M", tmp_path_factory.mktemp("binary") / "out")


def device_tool(maker: Maker) -> PythonTool:
    tool = maker.toolchain().device_tool(X86_64)
    assert tool is not None
    return tool


def write_probes(folder: Path, rows: np.ndarray) -> Path:
    folder.mkdir()
    np.save(folder / "inputs.npy", rows)
    return folder


def test_probes_give_the_logits_of_every_token(
    maker: Maker, binary: Path, locked: LockedTools, tmp_path: Path
) -> None:
    inputs = {"binary": binary, "probes": write_probes(tmp_path / "probes", ROWS)}
    outputs = {"logits": tmp_path / "logits.npy", "timing": tmp_path / "timing.json"}
    locked.call(device_tool(maker), {"task": "text_generation"}, inputs, outputs)
    found = np.load(outputs["logits"])
    with LlamaCpp(binary, threads=1, sequences=1, length=32) as llama:
        expected = llama.logits(ROWS.tolist())
    np.testing.assert_array_equal(found, np.stack(expected))
    timing = json.loads(outputs["timing"].read_text())
    assert timing["runtime"] == "llama.cpp"
    assert timing["version"].startswith("xllamacpp 20")
    assert len(timing["latency_ms"]) == 2


def test_a_sentence_is_answered(maker: Maker, binary: Path, locked: LockedTools) -> None:
    said = locked.call(device_tool(maker), {}, {"binary": binary}, {}, arguments=("climb", "to 40 m"))
    with LlamaCpp(binary, threads=1, sequences=1, length=512) as llama:
        answer = llama.generate([llama.prompt("climb to 40 m")], llama.length)[0]
        assert said == llama.detokenize(answer) + "\n"
    with pytest.raises(ToolError, match="no sentence to answer"):
        locked.call(device_tool(maker), {}, {"binary": binary}, {})


def test_pictures_are_refused(maker: Maker, binary: Path, locked: LockedTools, tmp_path: Path) -> None:
    probes = write_probes(tmp_path / "probes", np.zeros((1, 1, 8, 8), np.float32))
    outputs = {"logits": tmp_path / "logits.npy", "timing": tmp_path / "timing.json"}
    with pytest.raises(ToolError, match="takes rows of tokens"):
        locked.call(device_tool(maker), {}, {"binary": binary, "probes": probes}, outputs)


MEASURE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy
from modelbuild.toolkit.llama_cpp import LlamaCpp

def resident():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmRSS"].split()[0]) * 1024

before = resident()
length = int(sys.argv[3])
with LlamaCpp(Path(sys.argv[2]), threads=1, sequences=1, length=length) as llama:
    llama.logits([[1] * length])
    print(resident() - before)
"""


@pytest.mark.parametrize("length", [64, 512, 2048])
def test_memory_is_what_was_predicted(maker: Maker, binary: Path, locked: LockedTools, length: int) -> None:
    """Within a third: llama.cpp also keeps a second copy of some matrices, in the order its kernels like."""
    python = locked.python(device_tool(maker))
    command = [python, "-I", "-c", MEASURE, str(ROOT), str(binary), str(length)]
    measured = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    where = PlatformInfo(X86_64.label, X86_64.constraints, Budget(context_length=length), LOCAL)
    predicted = maker.toolchain().footprint(Conversion(maker.info, "gguf:Q4_K_M", where))
    ours = predicted.ram + predicted.kv_cache  # Here the cache is F32, twice what it is by default.
    assert 0.75 < ours / measured < 1.33, (ours, measured)
