"""ncnn on emulated devices, 64 and 32 bits wide, by the real command line."""

from __future__ import annotations

import shutil

import pytest

from modelbuild.execution.host_program import find_program
from tests.command_line import CommandLine
from tests.toolchains.workshop import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_program("qemu-aarch64-static") is None or find_program("apt-get") is None,
        reason="needs Debian's apt and `apt-get install --no-install-recommends qemu-user-static`",
    ),
]
GENERATOR = """
def generate(args, seed):
    number = seed
    for split, count in args.items():
        for _ in range(count):
            number += 1
            yield split, {"prompt": f"climb to {number} m", "completion": f"{number}", "slice": "all"}
"""
BUILD = """
dataset(name = "data", generator = "data.py", args = {"train": 64, "calibration": 4, "eval": 8})

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

[
    [
        device_runner(name = "emulated-" + cpu, cpu = cpu, kind = "qemu-user"),
        platform(
            name = cpu,
            constraint_values = ["@platforms//cpu:" + cpu, "@platforms//os:linux"],
            runner = ":emulated-" + cpu,
        ),
        device_binary(
            name = "binary-" + cpu,
            format = "ncnn:fp32",
            model = ":model",
            platform = ":" + cpu,
            sequence_length = 32,
        ),
        parity_test(
            name = cpu + "_test",
            binary = ":binary-" + cpu,
            max_error = 0.001,
            min_top1 = 1.0,
            parent = ":model",
            probes = ":probes",
        ),
    ]
    for cpu in ["aarch64", "armv7"]
]
"""


def test_both_answer_as_torch_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("ncnn") / "workspace"
    root.mkdir()
    made = CommandLine(root)
    made.put("modelbuild.toml", '[build]\ntoolchains = ["//toolchains/ncnn:all"]\n')
    made.put("toolchains/BUILD.models", (ROOT / "toolchains/BUILD.models").read_text())
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "toolchains/ncnn", root / "toolchains/ncnn", ignore=hidden)
    made.put("data.py", GENERATOR)
    made.put("BUILD.models", BUILD)
    built = made.build("//:aarch64_test", "//:armv7_test", command="test")
    mnemonics = [each["mnemonic"] for each in built.events if each["event"] == "action_finished"]
    assert mnemonics.count("Probe") == 2
    assert mnemonics.count("Reference") == 2  # Of equal keys, so that one of them ran.
