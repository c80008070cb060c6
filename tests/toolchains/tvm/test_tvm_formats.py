"""Real models through TVM's compiler and runtime, each tool in the environment of its lock."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from modelbuild.api import (
    Artifact,
    Conversion,
    DefaultInfo,
    Lock,
    PlatformInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.packed_weights import read_tensors, split_packed
from modelbuild.toolkit.request import ToolError
from tests.toolchains.workshop import (
    HERE,
    LENGTH,
    LLAMA,
    VIT,
    WIDE_LLAMA,
    BuiltModel,
    Workshop,
    device,
    largest_error,
    random_model,
    rounded_model,
    size,
    top1_agreement,
)
from toolchains.tvm import rule
from toolchains.tvm.layers import pack_columns
from toolchains.tvm.rule import TvmToolchain

pytestmark = pytest.mark.slow

FOLDER = Path(rule.__file__).parent
SOURCES = sorted((FOLDER / "runtime").iterdir())
ROUNDING = 3e-6
"""Of the largest logit; the order of sums is another one."""
LARGE_LLAMA = WIDE_LLAMA | {
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
}
LARGE_VIT = VIT | {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 4,
    "num_channels": 3,
    "num_labels": 100,
}
SMALL = {
    "vit": VIT,
    "prime": VIT | {"image_size": 12, "hidden_size": 60, "num_attention_heads": 5, "intermediate_size": 100},
    "one-head": VIT | {"num_attention_heads": 1, "num_hidden_layers": 3, "num_labels": 37},
    "llama": LLAMA,
    "norms": LLAMA | {"model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 4},
    "biases": LLAMA | {"model_type": "qwen2", "hidden_size": 96, "num_hidden_layers": 3},
}
"""60 to 600 KB, of which code is up to a half."""
LOOPS_TELL = 200_000
"""Bytes of a library below which the small loops that LLVM doubles on x86-64 take up to 2 %."""
FORMATS = ["tvm:fp32", "tvm:int8", "tvm:int4"]
FAMILIES = ["llama", "vit"]
MEASURE = '''
import numpy as np
import device_tool


def resident():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmRSS"].split()[0]) * 1024


def main(request):
    """How many bytes a process grows by that loads a library and runs it once."""
    before = resident()
    model = device_tool.open_model(request.inputs["binary"])
    model(np.zeros(model.shape))
    request.outputs["bytes"].write_text(str(resident() - before))
'''


def toolchain() -> RuntimeToolchainInfo:
    runner = RuleRunner()
    sources = tuple(Artifact(str(path), "source") for path in SOURCES)
    runner.provide("//toolchains/tvm:runtime_sources", DefaultInfo(sources))
    return runner.analyze(TvmToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    """By family and format: what the format is made of."""
    folder = tmp_path_factory.mktemp("tvm")
    made = {
        "llama-fp32": random_model(folder / "llama", LARGE_LLAMA),
        "vit-fp32": random_model(folder / "vit", LARGE_VIT),
    }
    for family in FAMILIES:
        for bits, group in ((8, 0), (4, 32)):
            name = f"{family}-int{bits}"
            made[name] = rounded_model(made[f"{family}-fp32"], folder / name, bits=bits, group_size=group)
    return made


def source(family: str, format_: str) -> str:
    return f"{family}-{format_.removeprefix('tvm:')}"


def asked(model: BuiltModel, format_: str, platform: PlatformInfo = HERE) -> Conversion:
    return Conversion(model.info, format_, platform, sequence_length=LENGTH)


def library(shop: Workshop, model: BuiltModel, format_: str, platform: PlatformInfo = HERE) -> Path:
    """The library alone; the runtime that lies beside it on some devices is not made."""
    return shop.parts(toolchain(), model, asked(model, format_, platform), until="TvmCompile")[
        "TvmCompile/library"
    ]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_as_torch_does(
    shop: Workshop, models: dict[str, BuiltModel], family: str, format_: str
) -> None:
    model = models[source(family, format_)]
    found = shop.ask(toolchain(), shop.make(toolchain(), model, format_), model.rows())
    expected = model.answers()
    assert largest_error(found, expected) <= ROUNDING
    assert top1_agreement(found, expected) == 1


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_foretold(shop: Workshop, models: dict[str, BuiltModel], family: str, format_: str) -> None:
    model = models[source(family, format_)]
    for cpu in ("x86_64", "aarch64", "armv7", "riscv64"):
        footprint = toolchain().footprint(asked(model, format_, device(cpu)))
        told = footprint.disk - footprint.detail.get("runtime", 0)
        made = size(library(shop, model, format_, device(cpu)))
        assert abs(told - made) <= 0.01 * made, (cpu, told, made)


@pytest.mark.parametrize("name", SMALL)
def test_sizes_of_small_models_are_foretold(shop: Workshop, name: str, tmp_path: Path) -> None:
    model = random_model(tmp_path / "model", SMALL[name])
    rounded = rounded_model(model, tmp_path / "int8", bits=8, group_size=0)
    for each, format_ in ((model, "tvm:fp32"), (rounded, "tvm:int8")):
        for cpu in ("x86_64", "aarch64", "armv7", "riscv64"):
            footprint = toolchain().footprint(asked(each, format_, device(cpu)))
            told = footprint.disk - footprint.detail.get("runtime", 0)
            made = size(library(shop, each, format_, device(cpu)))
            nearly = 0.02 if cpu == "x86_64" and made < LOOPS_TELL else 0.01
            assert abs(told - made) <= nearly * made, (format_, cpu, told, made)


@pytest.mark.parametrize(("family", "format_"), [("llama", "tvm:int4"), ("vit", "tvm:int8")])
def test_the_codes_of_the_checkpoint_are_in_the_library(
    shop: Workshop, models: dict[str, BuiltModel], family: str, format_: str
) -> None:
    model = models[source(family, format_)]
    packed, _ = split_packed(read_tensors(model.path), int(format_[-1]))
    made = library(shop, model, format_).read_bytes()
    assert packed
    for weight in packed.values():
        assert pack_columns(weight).numpy().tobytes() in made


@pytest.mark.parametrize(("family", "format_"), [("llama", "tvm:int4"), ("vit", "tvm:fp32")])
def test_bytes_are_the_same_from_another_folder(
    shop: Workshop, models: dict[str, BuiltModel], family: str, format_: str, tmp_path: Path
) -> None:
    model = models[source(family, format_)]
    shutil.copytree(model.path, tmp_path / "elsewhere")
    first, again = (
        each.parts(toolchain(), BuiltModel(path, model.info), asked(model, format_))
        for each, path in ((shop, model.path), (shop.fresh(), tmp_path / "elsewhere"))
    )
    for name in ("TvmImport/module", "TvmCompile/library"):
        assert first[name].read_bytes() == again[name].read_bytes()


def test_asymmetric_weights_keep_their_zero_points(
    shop: Workshop, models: dict[str, BuiltModel], tmp_path: Path
) -> None:
    model = rounded_model(models["llama-fp32"], tmp_path / "model", symmetric=False, embeddings="float")
    made = shop.make(toolchain(), model, "tvm:int4")
    assert largest_error(shop.ask(toolchain(), made, model.rows()), model.answers()) <= ROUNDING
    assert abs(toolchain().footprint(asked(model, "tvm:int4")).disk - size(made)) <= 0.01 * size(made)


def test_weights_of_another_width_are_refused_by_the_tool_too(
    shop: Workshop, models: dict[str, BuiltModel]
) -> None:
    tool = PythonTool(FOLDER / "import_tool.py", lock=Lock(FOLDER / "requirements-import.lock"))
    params = {"format": "tvm:int8", "task": "language_model", "sequence_length": 8}
    with pytest.raises(ToolError, match="takes 8-bit weights, and the model has 4-bit weights"):
        shop.call(tool, {"model": models["llama-int4"].path}, ("module",), params=params)


def test_rows_of_another_length_are_refused(shop: Workshop, models: dict[str, BuiltModel]) -> None:
    made = shop.make(toolchain(), models["llama-fp32"], "tvm:fp32")
    with pytest.raises(ToolError, match="takes rows of shape"):
        shop.ask(toolchain(), made, models["llama-fp32"].rows(1, LENGTH - 1))


def test_a_person_may_type_tokens(
    shop: Workshop, models: dict[str, BuiltModel], capsys: pytest.CaptureFixture[str]
) -> None:
    tool = toolchain().device_tool(HERE)
    assert tool is not None
    binary = {"binary": shop.make(toolchain(), models["llama-fp32"], "tvm:fp32")}
    capsys.readouterr()
    shop.call(tool, binary, arguments=("1", "7", "9"))
    answer = capsys.readouterr().out.splitlines()
    assert len(answer) == 5
    assert answer[0].endswith("%")


@pytest.mark.parametrize("format_", ["tvm:fp32", "tvm:int4"])
def test_memory_is_what_was_predicted(
    shop: Workshop, models: dict[str, BuiltModel], format_: str, tmp_path: Path
) -> None:
    """No more than that, and not much less; Python and its modules left out."""
    tool, model = toolchain().device_tool(HERE), models[source("llama", format_)]
    assert tool is not None
    for name in ("device_tool.py", "device_model.py"):
        shutil.copyfile(FOLDER / name, tmp_path / name)
    (tmp_path / "measure_tool.py").write_text(MEASURE)
    measure = PythonTool(tmp_path / "measure_tool.py", lock=tool.lock)
    made = shop.call(measure, {"binary": shop.make(toolchain(), model, format_)}, ("bytes",))
    measured = int(made["bytes"].read_text())
    predicted = toolchain().footprint(asked(model, format_)).ram
    assert measured <= predicted < 2 * measured, (predicted, measured)


@pytest.mark.timeout(1500)
def test_a_runtime_is_the_same_wherever_it_is_built(shop: Workshop, models: dict[str, BuiltModel]) -> None:
    tool = PythonTool(FOLDER / "runtime_tool.py", lock=Lock(FOLDER / "requirements.lock"))
    inputs = {path.name: path for path in SOURCES}
    made = [  # Each in a directory of its own.
        shop.call(tool, inputs, ("library",), params={"cpu": "armv7"})["library"].read_bytes()
        for _ in range(2)
    ]
    assert made[0] == made[1]
    assert b"site-packages" not in made[0]
    assert str(shop.directory).encode() not in made[0]
    footprint = toolchain().footprint(asked(models["llama-fp32"], "tvm:fp32", device("armv7")))
    assert abs(footprint.detail["runtime"] - len(made[0])) <= 0.01 * len(made[0])
