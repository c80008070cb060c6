"""The verdict of one cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelbuild.rules.matrix import cell_tool
from modelbuild.toolkit.request import Request

BUDGET = {"disk": 100, "ram": None, "context_length": None, "latency_ms": 5.0}
PARITY = {"top1_agreement": 0.99, "kl": 0.01, "exact_match": 0.9, "max_error": 0.1}
BOUNDS = {"top1_agreement": ["at_least", 0.98], "kl": ["at_most", 0.05]}


def report(
    tmp_path: Path, *, size: int = 80, parity: dict[str, Any] | None = None, **params: Any
) -> dict[str, Any]:
    binary = tmp_path / "binary"
    binary.mkdir()
    (binary / "weights").write_bytes(b"w" * size)
    inputs = {"binary": binary}
    if parity is not None:
        for name, content in {
            "parity": parity,
            "timing": {"latency_ms": [3, 1, 2], "peak_rss_bytes": 7},
        }.items():
            inputs[name] = tmp_path / f"{name}.json"
            inputs[name].write_text(json.dumps(content))
    known: dict[str, Any] = dict.fromkeys(("artifact", "platform", "format", "runtime", "toolchain"), "x")
    known |= {"predicted": {}, "budget": BUDGET, "runner": "local", "not_run": "", "bounds": BOUNDS, **params}
    out = tmp_path / "cell.json"
    cell_tool.main(Request(known, inputs, {"report": out}))
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_what_was_run_and_is_within_its_bounds_passes(tmp_path: Path) -> None:
    found = report(tmp_path, parity=PARITY)
    assert (found["verdict"], found["reason"], found["size_bytes"]) == ("pass", "", 80)
    assert found["latency_ms"] == {"median": 2, "p95": 3, "runs": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"top1_agreement": 0.9}, "top1_agreement is 0.9, below 0.98"),
        ({"kl": 0.2}, "kl is 0.2, above 0.05"),
        ({"kl": float("nan")}, "kl is not a number"),
        ({"kl": None}, "kl is not a number"),
    ],
)
def test_what_is_beyond_a_bound_or_no_number_fails(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    found = report(tmp_path, parity=PARITY | change)
    assert (found["verdict"], found["reason"]) == ("fail", words)


def test_a_metric_that_was_not_measured_fails(tmp_path: Path) -> None:
    assert report(tmp_path, parity={"kl": 0.01})["reason"] == "top1_agreement is not a number"


def test_a_file_that_is_too_large_fails_though_nothing_could_be_run(tmp_path: Path) -> None:
    found = report(tmp_path, size=101, not_run="far away", runner="none")
    assert (found["verdict"], found["reason"]) == (
        "fail",
        "it has 101 bytes, and the platform has room for 100",
    )


def test_what_cannot_be_run_is_unverified(tmp_path: Path) -> None:
    found = report(tmp_path, not_run="far away", runner="none")
    assert (found["verdict"], found["reason"], found["parity"]) == ("unverified", "far away", None)


def test_a_pass_that_takes_too_long_fails_but_not_under_emulation(tmp_path: Path) -> None:
    slow: dict[str, Any] = {"budget": BUDGET | {"latency_ms": 1.5}, "parity": PARITY}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert report(tmp_path / "a", **slow)["reason"] == "a pass takes 2 ms, and 1.5 are allowed"
    assert report(tmp_path / "b", runner="qemu-user", **slow)["verdict"] == "pass"
