"""Everything made of the shared ONNX export, by the real command line: here and on emulated aarch64."""

from __future__ import annotations

import json

import pytest

from tests.command_line import CommandLine
from tests.toolchains.small_workspace import EMULATED, MODEL, small_workspace

pytestmark = pytest.mark.slow
DEVICES = """
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
    return small_workspace(tmp_path_factory.mktemp("onnx"), "onnxruntime", "openvino", build=MODEL + DEVICES)


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
