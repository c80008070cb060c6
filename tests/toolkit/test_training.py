import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from modelbuild.toolkit import training
from modelbuild.toolkit.training import Order, Settings
from tests.tiny_text import RULES, TRAINING, train, tree

PROGRAM = """
import json, sys
from pathlib import Path
from modelbuild.toolkit import training
from modelbuild.toolkit.request import Request, call_tool
training.CHECKPOINT_INTERVAL_S = 0.0
training.CHECKPOINT_SHARE = 1.0
request = json.loads(sys.argv[2])
sys.exit(call_tool(Path(sys.argv[1]), Request.from_json(request, Path("/"))))
"""


def test_every_epoch_sees_every_example_once() -> None:
    lengths = [7 * n % 13 for n in range(50)]
    order = Order(lengths, 8, seed=1)
    first = [i for step in range(order.batches_per_epoch) for i in order.at(step)]
    second = [i for step in range(order.batches_per_epoch) for i in order.at(step + order.batches_per_epoch)]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    lengths = [n % 5 for n in range(100)]
    forwards = [Order(lengths, 8, seed=2).at(step) for step in range(40)]
    order = Order(lengths, 8, seed=2)
    backwards = [order.at(step) for step in reversed(range(40))]
    assert forwards == backwards[::-1]
    assert forwards != [Order(lengths, 8, seed=3).at(step) for step in range(40)]


def test_batches_hold_examples_of_like_length() -> None:
    lengths = [(n * 37) % 100 for n in range(320)]
    spread = [max(map(lengths.__getitem__, b)) - min(map(lengths.__getitem__, b)) for b in _batches(lengths)]
    assert max(spread) < 20


def _batches(lengths: list[int]) -> Any:
    order = Order(lengths, 10, seed=0)
    return [order.at(step) for step in range(order.batches_per_epoch)]


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("cosine", 0.5, 0.0), ("linear", 0.5, 0.0), ("constant", 1.0, 1.0)]
)
def test_the_learning_rate_rises_and_falls(schedule: str, middle: float, last: float) -> None:
    settings = Settings(110, 1, 1.0, 0, schedule, warmup=10)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(9) == pytest.approx(1.0)
    assert settings.rate(60) == pytest.approx(middle)
    assert settings.rate(110) == pytest.approx(last)


def test_a_checkpoint_is_continued_to_the_same_bytes(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_INTERVAL_S", 0.0)
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", 1.0)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    class Killed(Exception):
        pass

    def stop_at_4(step: int, _total: int, **_metrics: Any) -> None:
        if step == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "report", stop_at_4)
        with pytest.raises(Killed):
            train(text, tmp_path / "lost", scratch)
    assert not (tmp_path / "lost").exists()
    assert [p.name for p in scratch.iterdir()] == ["checkpoint.safetensors"]
    seen: list[int] = []
    monkeypatch.setattr(training, "report", lambda step, _total, **_metrics: seen.append(step))
    continued = train(text, tmp_path / "continued", scratch)
    assert seen == [4, 5, 6]
    assert tree(continued) == tree(text / "teacher")


@pytest.mark.slow
def test_a_killed_process_continues_to_the_same_bytes(text: Path, tmp_path: Path) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "model"
    scratch.mkdir()
    request = {
        "params": TRAINING | {"steps": 200},
        "inputs": {"dataset": str(text / "dataset"), "tokenizer": str(text / "tokenizer")},
        "outputs": {"model": str(out)},
        "scratch": str(scratch),
    }
    whole = train(text, tmp_path / "whole", steps=200)
    kills = 0
    while not out.exists():
        process = _start(request)
        if kills < 3:
            checkpoint = scratch / "checkpoint.safetensors"
            before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
            while process.poll() is None and (
                not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before
            ):
                time.sleep(0.005)
            if process.poll() is None:
                process.kill()
                kills += 1
        code = process.wait()
        assert code in (0, -signal.SIGKILL)
    assert kills >= 1
    assert tree(out) == tree(whole)


def _start(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    import json

    command = [sys.executable, "-c", PROGRAM, str(RULES / "train/tool.py"), json.dumps(request)]
    return subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])


def test_a_fresh_process_gives_the_same_bytes(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    request = {
        "params": TRAINING,
        "inputs": {"dataset": str(text / "dataset"), "tokenizer": str(text / "tokenizer")},
        "outputs": {"model": str(out)},
    }
    assert _start(request).wait() == 0
    assert tree(out) == tree(text / "teacher")


def test_nothing_of_the_machine_is_in_the_tree(text: Path) -> None:
    for name, data in tree(text / "teacher").items():
        assert str(text).encode() not in data, name
        assert b"/tmp/" not in data, name


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    from modelbuild.toolkit.request import ToolError

    weight = torch.nn.Linear(1, 1)

    class Ones:
        lengths = [1] * 4
        rows = [1] * 4

    class Task:
        unit = "items"

        def batch(self, examples: Any, indices: Any) -> Any:
            return None

    def loss(_batch: Any, _indices: Any) -> Any:
        return weight.weight.sum() * math.nan, {}

    with pytest.raises(ToolError, match="at step 1"):
        training.fit(weight, cast("Any", Task()), Ones(), Settings(2, 2, 1.0, 0), loss)
