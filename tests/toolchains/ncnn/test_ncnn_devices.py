"""ncnn on emulated devices, 64 and 32 bits wide, by the real command line."""

from __future__ import annotations

import pytest

from tests.toolchains.small_workspace import EMULATED, MODEL, small_workspace

pytestmark = [pytest.mark.slow, EMULATED]
DEVICES = """
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
    made = small_workspace(tmp_path_factory.mktemp("ncnn"), "ncnn", build=MODEL + DEVICES)
    built = made.build("//:aarch64_test", "//:armv7_test", command="test")
    mnemonics = [each["mnemonic"] for each in built.events if each["event"] == "action_finished"]
    assert mnemonics.count("Probe") == 2
    assert mnemonics.count("Reference") == 2  # Of equal keys, so that one of them ran.
