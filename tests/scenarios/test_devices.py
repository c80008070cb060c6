"""A device binary from conversion to parity test and `modelbuild run`, on an emulated device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelbuild.execution.host_program import find_program
from tests.command_line import CommandLine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_program("qemu-aarch64-static") is None or find_program("apt-get") is None,
        reason="needs Debian's apt and `apt-get install --no-install-recommends qemu-user-static`",
    ),
]

RULES = '''
from dataclasses import dataclass
from pathlib import Path

from modelbuild.api import (
    Context, DefaultInfo, DeviceBinaryInfo, DeviceRunInfo, Footprint, Lock, ModelInfo, ProbesInfo, PythonTool,
    ReferenceInfo, Rule, RuntimeToolchainInfo,
)

HERE = Path(__file__).parent


class Logits(Rule):
    """Stands in for a model, its probes and what it answers: `shift` is what the device will differ by."""

    def analyze(self, ctx: Context):
        probes, reference = ctx.declare_tree("probes"), ctx.declare_file("reference.npy")
        ctx.run(
            tool=PythonTool(HERE / "probes_tool.py", ("numpy",)),
            mnemonic="Make",
            inputs={},
            outputs={"probes": probes, "logits": reference},
            params={},
        )
        return [
            DefaultInfo((reference,)),
            ModelInfo(reference, "text_generation", {}),
            ProbesInfo(probes, "text_generation", 4),
            ReferenceInfo(reference, ctx.label, probes),
        ]


@dataclass(frozen=True)
class ToyInfo(RuntimeToolchainInfo):
    def footprint(self, conversion):
        return Footprint(disk=10, weights=10)

    def convert(self, ctx, conversion):
        out = ctx.declare_file(f"{conversion.prefix}model.toy")
        ctx.write(out, conversion.format.partition(":")[2])
        return DeviceBinaryInfo(out, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform):
        return PythonTool(HERE / "device_tool.py", lock=Lock(HERE / "device.lock", "aarch64-manylinux_2_28"))


class ToyToolchain(Rule):
    """A runtime that adds `shift` to what its model answers."""

    def analyze(self, ctx):
        return [DefaultInfo(), ToyInfo("toy", ("toy:0", "toy:1"))]
'''
PROBES = """
import numpy as np
from modelbuild.toolkit.logits_file import write_logits
from modelbuild.toolkit.probes import write_probes


def main(request):
    inputs = np.arange(8).reshape(2, 4)
    targets = np.roll(inputs, -1, axis=1) % 5
    targets[:, -1] = -1
    write_probes(
        request.outputs["probes"], inputs, targets, task="text_generation", split="eval", slices=["all", "all"]
    )
    write_logits(request.outputs["logits"], np.sin(inputs[..., None] * np.arange(1, 6)))
"""
DEVICE = """
import platform
from pathlib import Path

import numpy as np
from modelbuild.toolkit.device_run import run_probes


def main(request):
    shift = float(request.inputs["binary"].read_text())
    if request.arguments:
        print(platform.machine(), shift, *request.arguments, *Path("beside.txt").read_text().split())
        return

    def call(row):
        return np.sin(row[..., None] * np.arange(1, 6)) + shift * (np.arange(5) == 0)

    run_probes(request, call, runtime="toy", version=platform.machine())
"""
BUILD = """
load("//toolchains/toy:rule.py", "logits", "toy_toolchain")

device_runner(name = "emulator", cpu = "aarch64", kind = "qemu-user")

platform(
    name = "drone",
    constraint_values = ["@platforms//cpu:aarch64", "@platforms//os:linux"],
    runner = ":emulator",
)

platform(
    name = "phone",
    constraint_values = ["@platforms//cpu:aarch64", "@platforms//os:android"],
    not_run = "only a phone runs it",
)

toolchain_type(name = "runtime")

toy_toolchain(name = "toy")

toolchain(name = "toy_aarch64", toolchain = ":toy", toolchain_type = ":runtime")

logits(name = "model")

[
    device_binary(name = "good" + where, format = "toy:0", model = ":model", platform = platform, toolchain_type = "//:runtime")
    for where, platform in [("", ":drone"), ("-phone", ":phone"), ("-any", None)]
]

device_binary(name = "shifted", format = "toy:1", model = ":model", platform = ":drone", toolchain_type = "//:runtime")

[
    parity_test(
        name = name + "_test",
        binary = ":" + name,
        max_error = 0.001,
        min_top1 = 1.0,
        parent = ":model",
        probes = ":model",
    )
    for name in ["good", "shifted"]
]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    root = tmp_path_factory.mktemp("devices") / "workspace"
    root.mkdir()
    workspace = CommandLine(root)
    workspace.put("modelbuild.toml", '[build]\ntoolchains = ["//:toy_aarch64"]\n')
    workspace.put("toolchains/toy/BUILD.models", "")
    workspace.put("toolchains/toy/rule.py", RULES)
    workspace.put("toolchains/toy/probes_tool.py", PROBES)
    workspace.put("toolchains/toy/device_tool.py", DEVICE)
    workspace.put("toolchains/toy/device.lock", "numpy==2.4.6\n")
    workspace.put("BUILD.models", BUILD)
    return workspace


def read(workspace: CommandLine, path: str) -> dict[str, object]:
    data = json.loads((Path(workspace.root) / "modelbuild-out" / path).read_text())
    assert isinstance(data, dict)
    return data


def test_a_binary_that_answers_as_its_parent_passes(made: CommandLine) -> None:
    made.build("//:good_test", command="test")
    parity = read(made, "good_test/parity.json")
    assert parity["top1_agreement"] == 1.0
    assert isinstance(parity["max_error"], float)
    assert parity["max_error"] < 1e-6
    assert read(made, "good_test/verdict.json")["passed"] is True
    assert read(made, "good_test/timing.json")["version"] == "aarch64"


def test_one_that_does_not_fails_with_the_numbers(made: CommandLine) -> None:
    outcome = made.build("//:shifted_test", command="test", expect=3)
    assert "max_error 1 <= 0.001: FAILED" in outcome.stderr + outcome.stdout
    assert read(made, "shifted_test/verdict.json")["passed"] is False


def test_a_second_run_on_the_device_gives_the_same(made: CommandLine) -> None:
    made.build("//:good_test", command="test")
    made.build("--check", "//:good_test")


def test_run_calls_the_device(made: CommandLine) -> None:
    made.put("beside.txt", "a file of mine")
    found = made.run("run", "//:good", "--", "up", "and away").stdout
    assert found == "aarch64 0.0 up and away a file of mine\n"
    found = made.run("run", "--platform", "//:drone", "//:good-any", "--", "x").stdout
    assert found == "aarch64 0.0 x a file of mine\n"


def test_aquery_names_the_device(made: CommandLine) -> None:
    shown = made.run("aquery", "//:good_test").stdout
    assert "  runner: qemu-user, aarch64\n" in shown
    rows = json.loads(made.run("aquery", "--json", "//:good_test").stdout)
    kinds = {row["mnemonic"]: row["runner"] and row["runner"]["kind"] for row in rows}
    assert kinds == {"Probe": "qemu-user", "Parity": None, "Verdict": None}


def test_run_says_why_it_cannot(made: CommandLine) -> None:
    outcome = made.run("run", "//:good-phone", "--", "x")
    assert outcome.exit_code == 2
    assert "only a phone runs it" in outcome.stderr


def test_explain_names_what_changed_of_the_device(made: CommandLine) -> None:
    made.build("//:good_test", command="test")
    made.put("toolchains/toy/device.lock", "numpy==2.4.5\n")
    try:
        outcome = made.run("explain", "//:good_test")
    finally:
        made.put("toolchains/toy/device.lock", "numpy==2.4.6\n")
    assert "numpy 2.4.6 -> 2.4.5" in outcome.stdout + outcome.stderr
