"""Everything made of the shared ONNX export, by the real command line: here and on emulated aarch64."""

from __future__ import annotations

import json
import shutil

import pytest

from modelbuild.execution.host_program import find_program
from tests.command_line import CommandLine
from tests.toolchains.workshop import ROOT

pytestmark = pytest.mark.slow
EMULATED = pytest.mark.skipif(
    find_program("qemu-aarch64-static") is None or find_program("apt-get") is None,
    reason="needs Debian's apt and `apt-get install --no-install-recommends qemu-user-static`",
)
GENERATOR = """
def generate(args, seed):
    number = seed
    for split, count in args.items():
        for _ in range(count):
            number += 1
            yield split, {"prompt": f"climb to {number} m", "completion": f"{number}", "slice": "all"}
"""
BUILD = """
dataset(name = "data", generator = "data.py", args = {"train": 64, "calibration": 40, "eval": 8})

tokenizer(name = "tokenizer", dataset = ":data", vocab_size = 264)

train(
    name = "model",
    architecture = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    batch_size = 8,
    dataset = ":data",
    sequence_length = 32,
    steps = 5,
    tokenizer = ":tokenizer",
)

probes(name = "probes", dataset = ":data", length = 32, rows = 3, tokenizer = ":tokenizer")

device_runner(name = "emulated", cpu = "aarch64", kind = "qemu-user")

platform(
    name = "aarch64",
    constraint_values = ["@platforms//cpu:aarch64", "@platforms//os:linux"],
    runner = ":emulated",
)

[
    [
        device_binary(
            name = name,
            calibration = ":data",
            format = format,
            model = ":model",
            platform = platform,
            sequence_length = 32,
        ),
        parity_test(
            name = name + "_test",
            binary = ":" + name,
            max_error = bound,
            parent = ":model",
            probes = ":probes",
        ),
    ]
    for name, format, platform, bound in [
        ("static-here", "onnx:int8-static", "@platforms//host", 0.1),
        ("static-there", "onnx:int8-static", ":aarch64", 0.1),
        ("genai-there", "genai:fp32", ":aarch64", 0.001),
        ("openvino-here", "openvino:fp32", "@platforms//host", 0.001),
        ("openvino-there", "openvino:fp32", ":aarch64", 0.001),
    ]
]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    root = tmp_path_factory.mktemp("onnx") / "workspace"
    root.mkdir()
    made = CommandLine(root)
    registered = '["//toolchains/onnxruntime:all", "//toolchains/openvino:all"]'
    made.put("modelbuild.toml", f"[build]\ntoolchains = {registered}\n")
    made.put("toolchains/BUILD.models", (ROOT / "toolchains/BUILD.models").read_text())
    hidden = shutil.ignore_patterns("__pycache__")
    for name in ("onnxruntime", "openvino"):
        shutil.copytree(ROOT / "toolchains" / name, root / "toolchains" / name, ignore=hidden)
    made.put("data.py", GENERATOR)
    made.put("BUILD.models", BUILD)
    return made


def ran(made: CommandLine, *targets: str) -> list[str]:
    built = made.build(*targets, command="test")
    events = [each for each in built.events if each["event"] == "action_finished"]
    return [each["mnemonic"] for each in events if each["result"] == "executed"]


def test_two_runtimes_share_the_export_here(made: CommandLine) -> None:
    mnemonics = ran(made, "//:static-here_test", "//:openvino-here_test")
    assert mnemonics.count("OnnxExport") == 1
    assert mnemonics.count("Probe") == 2


@EMULATED
def test_a_device_gets_the_same_files_and_gives_the_same_answers(made: CommandLine) -> None:
    ran(made, "//:static-here_test", "//:openvino-here_test")
    mnemonics = ran(made, "//:static-there_test", "//:openvino-there_test", "//:genai-there_test")
    # The device is in no key but that of asking it.
    assert sorted(set(mnemonics)) == ["GenaiBuild", "Parity", "Probe", "Verdict"]
    assert mnemonics.count("Probe") == 3
    here, there = (json.loads(made.out(f"static-{where}_test/parity.json")) for where in ("here", "there"))
    assert abs(here["max_error"] - there["max_error"]) < 1e-4
