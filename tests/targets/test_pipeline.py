"""The example families of this repository, built in place: every gate holds, and what is made is what was
promised. Takes minutes when the cache is empty; nothing runs when it is not."""

import json
from pathlib import Path

import pytest

from tests.command_line import CommandLine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here() -> CommandLine:
    """This repository as a workspace, with all of its targets built and its gates passed."""
    repository = CommandLine(ROOT)
    process = repository.start("test", "--keep-going", "//...")
    stdout, stderr = process.communicate(timeout=2300)
    assert process.returncode == 0, stdout[-3000:] + stderr[-3000:]
    build = repository.start("build", "--keep-going", "//...")
    _, stderr = build.communicate(timeout=2300)
    assert build.returncode == 0, stderr[-3000:]
    return repository


def weights(step: str) -> int:
    return sum(
        p.stat().st_size for p in (ROOT / "modelbuild-out/targets" / step / "model").rglob("*.safetensors")
    )


def test_a_second_build_runs_nothing(here: CommandLine) -> None:
    result = here.run("build", "--json", "//...")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["counts"]["executed"] == 0


@pytest.mark.usefixtures("here")
def test_the_binary_is_as_small_as_four_bits_allow() -> None:
    binary = (ROOT / "modelbuild-out/targets/drone-int4/model.gguf").stat().st_size
    fp16 = weights("pruned") / 2  # Stored as float32.
    assert binary <= 0.30 * fp16


@pytest.mark.usefixtures("here")
def test_each_step_is_smaller_than_its_parent() -> None:
    sizes = [weights(step) for step in ("teacher", "student", "pruned", "int4")]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


def test_checkpoints_are_as_large_as_was_told_before_they_were_trained(here: CommandLine) -> None:
    result = here.run("size", "--json", "//targets/...")
    assert result.exit_code == 0, result.stderr
    told = {
        each["label"].removeprefix("//targets").lstrip("/:").replace(":", "/"): each["checkpoint"]["bytes"]
        for each in json.loads(result.stdout)["targets"]
        if each["label"] == each["model"]
    }
    made = {step: told[step] for step in told if weights(step)}  # A candidate has no checkpoint of its own.
    assert made == {step: weights(step) for step in made}
    assert {"teacher", "student", "pruned", "int4", "digits/int8", "stdlib/model"} <= set(made)


def test_an_operator_gets_commands_from_llama_cpp(here: CommandLine) -> None:
    sentence = "climb to 40 m, then hold for ten seconds"
    result = here.run("run", "//targets:drone-int4", "--", sentence)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == [{"op": "climb", "altitude_m": 40}, {"op": "hold", "seconds": 10}]


@pytest.mark.usefixtures("here")
def test_the_quality_of_every_step_is_shown() -> None:
    table = (ROOT / "modelbuild-out/targets/quality/quality.md").read_text()
    for step in ("teacher", "student", "pruned", "int4", "int4-rtn", "drone-int4"):
        assert f"| {step} |" in table


def test_digits_are_read_by_onnx_runtime(here: CommandLine) -> None:
    result = here.run("run", "//targets/digits:digits-onnx", "--", "0")
    assert result.exit_code == 0, result.stderr
    assert any(character.isdigit() for character in result.stdout)
