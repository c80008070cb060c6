"""A small real model through the real command line: trained, killed and resumed, packed, run."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.command_line import CommandLine

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tmp_path: Path) -> CommandLine:
    """What `modelbuild init --template model` writes."""
    here = CommandLine(tmp_path)
    result = here.run("init", "--template", "model", "ws")
    assert result.exit_code == 0, result.stderr
    return CommandLine(tmp_path / "ws")


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_template_builds_runs_and_rebuilds_what_changed(model: CommandLine) -> None:
    first = model.build("//:binary")
    assert first.executed() == {"//:colours", "//:tokenizer", "//:model", "//:binary"}
    assert model.build("//:binary").finished["executed"] == 0
    answer = model.run("run", "//:binary", "--", "mix 3 drops of blue with 7 of red")
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.strip()

    build = (model.root / "BUILD.models").read_text()
    model.put("BUILD.models", build.replace('type = "Q8_0"', 'type = "F16"'))
    assert model.build("//:binary").executed() == {"//:binary"}
    model.put("BUILD.models", build.replace("steps = 120", "steps = 121"))
    would = model.run("explain", "//:model").stdout
    assert "steps" in would
    assert "120" in would
    assert "121" in would
    model.put("BUILD.models", build)
    assert model.build("//:binary").finished["executed"] == 0


def test_a_killed_training_resumes_and_gives_the_same_bytes(model: CommandLine, tmp_path: Path) -> None:
    build = (
        (model.root / "BUILD.models").read_text().replace("steps = 120", "steps = 1200")
    )  # Checkpoints come every ten seconds.
    model.put("BUILD.models", build)
    events = tmp_path / "killed.events"
    process = model.start("build", "--events", str(events), "//:model")
    scratch = model.root / "cache" / "scratch"
    deadline = time.monotonic() + 240
    while not list(scratch.glob("*/checkpoint*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)

    resumed = model.build("//:model")
    assert resumed.executed() == {"//:model"}
    steps = [e["step"] for e in resumed.events if e["event"] == "action_progress"]
    assert min(steps) > 1, "it began anew"
    interrupted = digests(model.root / "modelbuild-out" / "model")
    assert not list(scratch.glob("*/*")), "the checkpoint is not needed any more"

    model.build("--cache-dir", str(tmp_path / "other"), "//:model")
    assert digests(model.root / "modelbuild-out" / "model") == interrupted
    assert model.run("build", "--check", "//:model").exit_code == 0


def test_a_damaged_weight_file_is_not_packed(model: CommandLine) -> None:
    model.build("//:binary")
    before = digests(model.root / "modelbuild-out" / "binary")
    weights = next((model.root / "modelbuild-out" / "model").rglob("*.safetensors")).resolve()
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1000] ^= 1
    weights.write_bytes(data)
    result = model.build("//:binary")
    assert "//:model" in result.executed()
    assert digests(model.root / "modelbuild-out" / "binary") == before


def test_events_of_a_training(model: CommandLine) -> None:
    result = model.build("//:model")
    progress = [e for e in result.events if e["event"] == "action_progress"]
    assert any("loss" in e["metrics"] and "tokens_per_s" in e["metrics"] for e in progress)
    trained = next(e for e in result.events if e["event"] == "action_finished" and e["label"] == "//:model")
    assert trained["peak_rss_bytes"] > 50 << 20
    assert len(trained["key"]) == 64
    json.dumps(result.events)
