"""The numbers of a comparison, on logits that are written by hand, and verdicts over them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelbuild.toolkit.probes import IGNORED, write_probes
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call

TARGETS = np.array([[IGNORED, 1, 2, IGNORED], [0, IGNORED, IGNORED, IGNORED]])


def logits(seed: int = 0, scale: float = 1.0) -> Any:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((2, 4, 3)) * scale).astype(np.float32)


def compare(folder: Path, ours: Any, theirs: Any, teacher: Any = None, targets: Any = TARGETS) -> Any:
    folder.mkdir(exist_ok=True)
    probes = folder / f"probes{len(list(folder.iterdir()))}"
    shape = targets.shape if targets.ndim == 2 else (len(targets), 1, 2, 2)
    write_probes(
        probes,
        np.zeros(shape, dtype=np.int64 if targets.ndim == 2 else np.float32),
        targets,
        task="text_generation",
        split="eval",
        slices=["all"] * len(targets),
    )
    inputs = {"probes": probes}
    for name, array in (("logits", ours), ("reference", theirs), ("teacher", teacher)):
        if array is not None:
            with (folder / name).open("wb") as stream:
                np.save(stream, array)
            inputs[name] = folder / name
    call("device/parity_tool.py", {}, inputs, {"parity": folder / "parity"})
    return json.loads((folder / "parity").read_text())


def softmax(row: Any) -> Any:
    return np.exp(row.astype(np.float64)) / np.exp(row.astype(np.float64)).sum()


def test_numbers_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    ours, theirs, teacher = logits(1), logits(2), logits(3)
    found = compare(tmp_path, ours, theirs, teacher)
    counted = [(0, 1), (0, 2), (1, 0)]
    errors = [np.abs(ours[at].astype(np.float64) - theirs[at]) for at in counted]
    assert found["max_error"] == pytest.approx(max(e.max() for e in errors))
    assert found["mean_error"] == pytest.approx(np.mean(errors))
    worst = counted[int(np.argmax([e.max() for e in errors]))]
    assert (found["worst"]["row"], found["worst"]["position"]) == worst
    for key, other in (("kl", theirs), ("teacher_kl", teacher)):
        kl = [
            sum(p * math.log(p / q) for p, q in zip(softmax(other[at]), softmax(ours[at]), strict=True))
            for at in counted
        ]
        assert found[key] == pytest.approx(np.mean(kl))
    for key, other in (("top1_agreement", theirs), ("teacher_top1", teacher)):
        assert found[key] == pytest.approx(
            np.mean([ours[at].argmax() == other[at].argmax() for at in counted])
        )
    nll = [-math.log(softmax(ours[at])[TARGETS[at]]) for at in counted]
    assert found["nll"] == pytest.approx(np.mean(nll))
    assert (found["rows"], found["positions"]) == (2, 3)


def test_what_is_padding_is_not_compared(tmp_path: Path) -> None:
    theirs = logits(2)
    ours = theirs.copy()
    ours[0, 0] += 9
    ours[1, 1:] -= 9
    found = compare(tmp_path, ours, theirs)
    assert (found["max_error"], found["kl"], found["top1_agreement"]) == (0, 0, 1)


def test_a_row_matches_exactly_when_each_of_its_tokens_does(tmp_path: Path) -> None:
    right = np.zeros((2, 4, 3), dtype=np.float32)
    right[0, 1, 1] = right[0, 2, 2] = right[1, 0, 0] = 5
    wrong = right.copy()
    wrong[0, 2, 0] = 9
    found = compare(tmp_path, wrong, right)
    assert (found["exact_match"], found["parent_exact_match"]) == (0.5, 1.0)
    assert found["top1_agreement"] == pytest.approx(2 / 3)


def test_images_have_one_position(tmp_path: Path) -> None:
    ours, theirs = logits(1)[:, 0], logits(2)[:, 0]
    found = compare(tmp_path, ours, theirs, targets=np.array([2, 0]))
    assert found["positions"] == 2
    assert found["max_error"] == pytest.approx(np.abs(ours - theirs).max())


def test_huge_logits_stay_numbers(tmp_path: Path) -> None:
    assert math.isfinite(compare(tmp_path, logits(1, 1e20), logits(2, 1e20))["kl"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_an_error(tmp_path: Path, value: float) -> None:
    broken = logits(1)
    broken[1, 0, 0] = value
    with pytest.raises(ToolError, match="logits of the device are not all finite"):
        compare(tmp_path, broken, logits(2))
    with pytest.raises(ToolError, match="logits of the parent are not all finite"):
        compare(tmp_path, logits(2), broken)


def test_other_probes_or_another_vocabulary_are_told(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"shape \(2, 4, 2\), those of the device \(2, 4, 3\)"):
        compare(tmp_path, logits(1), logits(2)[:, :, :2])
    with pytest.raises(ToolError, match="have the shape"):
        compare(tmp_path, logits(1)[:1], logits(2)[:1])


def verdict(folder: Path, measured: dict[str, Any], params: dict[str, Any], kind: str = "parity") -> Any:
    (folder / kind).write_text(json.dumps(measured))
    bounds = {"at_most": {}, "at_least": {}, **params}
    call("device/verdict_tool.py", bounds, {kind: folder / kind}, {"verdict": folder / "verdict"})
    return json.loads((folder / "verdict").read_text())


def test_bounds_hold_or_not(tmp_path: Path) -> None:
    measured = {"max_error": 0.25, "kl": 0.01, "top1_agreement": 0.99}
    bounds = {"at_most": {"max_error": 0.25, "kl": 0.02}, "at_least": {"top1_agreement": 0.99}}
    assert verdict(tmp_path, measured, bounds)["passed"] is True
    worse = verdict(tmp_path, {**measured, "top1_agreement": 0.98}, bounds)
    assert worse["passed"] is False
    assert "top1_agreement 0.98 >= 0.99: FAILED" in worse["summary"]


@pytest.mark.parametrize("value", [math.nan, math.inf, None, True, "0.1"])
def test_what_was_not_measured_does_not_pass(tmp_path: Path, value: Any) -> None:
    assert verdict(tmp_path, {"kl": value}, {"at_most": {"kl": 1e9}})["passed"] is False
    assert verdict(tmp_path, {"kl": value}, {"at_least": {"kl": -1e9}})["passed"] is False
    assert verdict(tmp_path, {}, {"at_most": {"kl": 1}})["passed"] is False


def test_no_bounds_do_not_pass(tmp_path: Path) -> None:
    assert verdict(tmp_path, {"kl": 0.1}, {})["passed"] is False


def test_latency_is_the_median(tmp_path: Path) -> None:
    params = {"at_most": {"latency_ms": 3.0}}
    assert verdict(tmp_path, {"latency_ms": [1.0, 2.0, 99.0]}, params, "timing")["passed"] is True
    assert verdict(tmp_path, {"latency_ms": [1.0, 4.0, 99.0]}, params, "timing")["passed"] is False
    assert verdict(tmp_path, {"latency_ms": []}, params, "timing")["passed"] is False
