import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_text import call


def metrics(path: Path, **slices: dict[str, float]) -> Path:
    data = {"schema": 1, "subject": {"format": "x", "bytes": 1234567}, "slices": slices}
    path.write_text(json.dumps(data))
    return path


def verdict(tmp_path: Path, measured: Path, baseline: Path | None = None, **bounds: Any) -> dict[str, Any]:
    params = {"at_least": {}, "at_most": {}, "at_most_drop": {}, **bounds}
    inputs = {"metrics": measured} | ({"baseline": baseline} if baseline else {})
    out = tmp_path / "verdict.json"
    call("evaluate/gate_tool.py", params, inputs, {"verdict": out})
    data = json.loads(out.read_text())
    assert isinstance(data, dict)
    return data


@pytest.mark.parametrize(("bound", "passed"), [(0.9, True), (0.95, True), (0.951, False)])
def test_at_least(tmp_path: Path, bound: float, passed: bool) -> None:
    measured = metrics(tmp_path / "m", canonical={"exact_match": 0.95})
    made = verdict(tmp_path, measured, at_least={"canonical.exact_match": bound})
    assert made["passed"] is passed
    assert "canonical.exact_match 0.95" in made["summary"]


@pytest.mark.parametrize(("value", "passed"), [(0.90, True), (0.899, False), (0.99, True)])
def test_at_most_drop(tmp_path: Path, value: float, passed: bool) -> None:
    baseline = metrics(tmp_path / "b", all={"exact_match": 0.93})
    measured = metrics(tmp_path / "m", all={"exact_match": value})
    assert verdict(tmp_path, measured, baseline, at_most_drop={"all.exact_match": 0.03})["passed"] is passed


def test_at_most(tmp_path: Path) -> None:
    measured = metrics(tmp_path / "m", all={"kl_divergence": 0.2})
    assert not verdict(tmp_path, measured, at_most={"all.kl_divergence": 0.1})["passed"]
    assert verdict(tmp_path, measured, at_most={"all.kl_divergence": 0.3})["passed"]


@pytest.mark.parametrize("name", ["all.accuracy", "other.exact_match", "all.nan", "all.text", "all.yes"])
def test_what_was_not_measured_fails(tmp_path: Path, name: str) -> None:
    values: Any = {"exact_match": 1.0, "nan": math.nan, "text": "1.0", "yes": True}
    made = verdict(tmp_path, metrics(tmp_path / "m", all=values), at_least={name: 0.0})
    assert made["passed"] is False
    assert made["summary"] == f"{name} was not measured"


def test_a_baseline_that_was_not_measured_fails(tmp_path: Path) -> None:
    measured = metrics(tmp_path / "m", all={"exact_match": 1.0})
    baseline = metrics(tmp_path / "b", all={})
    made = verdict(tmp_path, measured, baseline, at_most_drop={"all.exact_match": 0.5})
    assert made["passed"] is False
    assert "of the baseline was not measured" in made["summary"]


def test_no_bounds_do_not_pass(tmp_path: Path) -> None:
    assert verdict(tmp_path, metrics(tmp_path / "m"))["passed"] is False


def test_the_table_shows_each_step_and_its_change(tmp_path: Path) -> None:
    one = metrics(tmp_path / "1", a={"exact_match": 0.9}, b={"exact_match": 0.5}, all={"bits_per_byte": 0.2})
    two = metrics(tmp_path / "2", a={"exact_match": 0.925}, b={}, all={"bits_per_byte": 0.3})
    outputs = {"markdown": tmp_path / "q.md", "json": tmp_path / "q.json"}
    inputs = {"metrics/0": one, "metrics/1": two}
    call("evaluate/table_tool.py", {"steps": ["teacher", "binary"]}, inputs, outputs)
    assert outputs["markdown"].read_text().splitlines() == [
        "| step | format | bytes | exact match, a | exact match, b | bits a byte |",
        "|---|---|---|---|---|---|",
        "| teacher | x | 1,234,567 | 90.0 % | 50.0 % | 0.2000 |",
        "| binary | x | 1,234,567 | 92.5 % (+2.5) |  | 0.3000 (+50.0 %) |",
    ]
    assert [s["step"] for s in json.loads(outputs["json"].read_text())["steps"]] == ["teacher", "binary"]
