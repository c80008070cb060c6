"""From data to two devices with the real command line: one conversion, one importance matrix, parity on both."""

from __future__ import annotations

import pytest

from tests.command_line import CommandLine
from tests.toolchains.small_workspace import EMULATED, small_workspace

pytestmark = pytest.mark.slow

GENERATOR = """
import json

WORDS = ("climb", "hold", "turn", "land")


def generate(args, seed):
    number = seed
    for split, count in args.items():
        for _ in range(count):
            number += 1
            prompt = f"{WORDS[number % 4]} to {number} m"
            yield split, {"prompt": prompt, "completion": json.dumps({"op": number}), "slice": "all"}
"""
BUILD = """
load("//toolchains/gguf:rule.py", "imatrix", "tokenizer_parity_test")

device_runner(name = "emulator", cpu = "aarch64", kind = "qemu-user")

platform(
    name = "drone",
    constraint_values = ["@platforms//cpu:aarch64", "@platforms//os:linux"],
    context_length = 64,
    runner = ":emulator",
)

platform(
    name = "tiny",
    constraint_values = ["@platforms//cpu:aarch64", "@platforms//os:linux"],
    ram = "8 MB",
)

dataset(name = "data", generator = "data.py", args = {"train": 64, "calibration": 16, "eval": 8})

tokenizer(name = "tokenizer", dataset = ":data", vocab_size = 270)

train(
    name = "model",
    architecture = {
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "tie_word_embeddings": True,
    },
    batch_size = 8,
    dataset = ":data",
    sequence_length = 32,
    steps = 10,
    tokenizer = ":tokenizer",
)

imatrix(name = "imatrix", dataset = ":data", model = ":model")

[
    device_binary(
        name = kind + "-" + where,
        calibration = ":data",
        format = "gguf:" + kind,
        model = ":model",
        platform = platform,
    )
    for kind in ["Q4_K_M", "Q2_K"]
    for where, platform in [("host", "@platforms//host"), ("drone", ":drone")]
]

device_binary(name = "tiny-binary", format = "gguf:Q2_K", model = ":model", platform = ":tiny")

tokenizer_parity_test(name = "tokenizer_test", binary = ":Q4_K_M-drone", tokenizer = ":tokenizer")

probes(name = "probes", dataset = ":data", length = 32, rows = 4, tokenizer = ":tokenizer")

[
    parity_test(
        name = where + "_test",
        binary = ":Q4_K_M-" + where,
        max_error = 0.5,
        min_top1 = 0.6,
        parent = ":model",
        probes = ":probes",
    )
    for where in ["host", "drone"]
]
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return small_workspace(tmp_path_factory.mktemp("gguf"), "gguf", build=BUILD, generator=GENERATOR)


def test_every_kind_and_device_shares_what_it_can(workspace: CommandLine) -> None:
    targets = [f"//:{kind}-{where}" for kind in ("Q4_K_M", "Q2_K") for where in ("host", "drone")]
    built = workspace.build("//:imatrix", *targets)
    finished = [each for each in built.events if each["event"] == "action_finished"]
    executed = [each["mnemonic"] for each in finished if each["result"] == "executed"]
    assert executed.count("Imatrix") == 1
    assert executed.count("GgufConvert") == 2
    binaries = list((workspace.root / "modelbuild-out").rglob("model.gguf"))
    assert len(binaries) == 4
    assert len({path.read_bytes() for path in binaries}) == 2
    workspace.build("--check", "//:Q4_K_M-host")


def test_the_host_answers_as_torch_does(workspace: CommandLine) -> None:
    workspace.build("//:host_test", "//:tokenizer_test", command="test")


@EMULATED
def test_an_emulated_drone_answers_as_torch_does(workspace: CommandLine) -> None:
    workspace.build("//:drone_test", command="test")
    assert workspace.run("run", "//:Q4_K_M-drone", "--", "climb 3").exit_code == 0


def test_a_device_that_is_too_small_is_refused_before_anything_runs(workspace: CommandLine) -> None:
    refused = workspace.build("//:tiny-binary", expect=2)
    assert "too large for `//:tiny`" in refused.stderr
    assert not refused.executed()
