"""The release matrix of this repository: both families, every device, with the real toolchains and emulators.

Takes minutes when the cache is empty; nothing runs when it is not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parents[2]
TARGET = "//targets:release"


def matrix(*flags: str) -> tuple[dict[str, Any], int, str]:
    process = CommandLine(ROOT).start("matrix", TARGET, "--json", *flags)
    stdout, stderr = process.communicate(timeout=2900)
    assert 'Traceback (most recent call last)\n  File "modelbuild/cli' not in stderr
    document: dict[str, Any] = json.loads(stdout) if stdout else {}
    return document, process.returncode, stderr


@pytest.fixture(scope="module")
def release() -> dict[str, Any]:
    document, code, stderr = matrix()
    bad = [cell for cell in document["cells"] if cell["verdict"] in ("broken", "fail")]
    assert (code, bad) == (0, []), stderr[-3000:]
    return document


def test_every_device_has_an_answer_for_both_families(release: dict[str, Any]) -> None:
    devices = {cell["platform"] for cell in release["cells"]}
    assert len(devices) >= 10
    for cell in release["cells"]:
        assert cell["verdict"] == "pass" or cell["reason"], cell
    made = {(c["platform"], "digits" in c["artifact"]) for c in release["cells"] if c["binary"]}
    with_both = {device for device, _ in made if {(device, True), (device, False)} <= made}
    assert len(with_both) >= 8, sorted(devices - with_both)


def test_devices_are_really_run(release: dict[str, Any]) -> None:
    runners = {cell["report"]["runner"] for cell in release["cells"] if cell["verdict"] == "pass"}
    assert {"local", "qemu-user"} <= runners
    for cell in release["cells"]:
        if cell["verdict"] == "pass":
            assert cell["report"]["parity"]["top1_agreement"] >= 0.98
            assert cell["report"]["latency_ms"]["runs"] >= 16


def test_sizes_are_what_was_predicted(release: dict[str, Any]) -> None:
    """Within 1 %. Graphs and code are estimated, and are up to 16 kB off, which is more of a 50 kB classifier."""
    wrong = {
        f"{cell['platform']} {cell['artifact']} {cell['format']}": (predicted, actual)
        for cell in release["cells"]
        if cell["report"]
        for predicted, actual in [(cell["report"]["predicted"]["disk"], cell["report"]["size_bytes"])]
        if abs(predicted - actual) > max(0.01 * actual, 16_000 if actual < 500_000 else 0)
    }
    assert not wrong


def test_what_devices_share_is_made_once(release: dict[str, Any]) -> None:
    assert release["actions"] < 0.6 * release["separate_actions"]


@pytest.mark.usefixtures("release")
def test_a_second_matrix_runs_nothing() -> None:
    document, code, _ = matrix()
    assert (document["executed"], code) == (0, 0)
