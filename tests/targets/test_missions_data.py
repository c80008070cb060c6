import importlib.util
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelbuild.rules.dataset.validate import normalise

SCRIPT = Path(__file__).resolve().parents[2] / "targets/missions.py"
SIZES = {"train": 1500, "calibration": 100, "eval": 200}


@pytest.fixture(scope="module")
def missions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("missions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["missions"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(missions: ModuleType) -> list[tuple[str, dict[str, Any]]]:
    return list(missions.generate(SIZES, 7))


def operations(row: dict[str, Any]) -> list[str]:
    return [command["op"] for command in json.loads(row["completion"])]


def test_splits_and_slices_are_as_large_as_asked(rows: list[tuple[str, dict[str, Any]]]) -> None:
    counts = Counter(split for split, _ in rows)
    assert counts == SIZES
    slices = Counter(row["slice"] for split, row in rows if split == "eval")
    assert slices == {"canonical": 100, "noisy": 50, "compositional": 50}
    assert {row["slice"] for split, row in rows if split != "eval"} == {"canonical", "noisy"}


def test_eval_is_disjoint_and_unique(rows: list[tuple[str, dict[str, Any]]]) -> None:
    by_split: dict[str, list[str]] = {}
    for split, row in rows:
        by_split.setdefault(split, []).append(normalise(row["prompt"]))
    assert len(set(by_split["eval"])) == SIZES["eval"]
    assert not set(by_split["eval"]) & (set(by_split["train"]) | set(by_split["calibration"]))


def test_combinations_of_the_compositional_slice_are_in_no_other_row(
    rows: list[tuple[str, dict[str, Any]]],
) -> None:
    def pairs(row: dict[str, Any]) -> set[tuple[str, str]]:
        return set(pairwise(operations(row)))

    seen = {pair for _, row in rows if row["slice"] != "compositional" for pair in pairs(row)}
    held_out = [row for _, row in rows if row["slice"] == "compositional"]
    assert held_out
    assert all(pairs(row) - seen for row in held_out)


def test_takeoff_comes_first_and_landing_last(rows: list[tuple[str, dict[str, Any]]]) -> None:
    for _, row in rows:
        names = operations(row)
        assert "takeoff" not in names[1:]
        assert not {"land", "return"} & set(names[:-1])
        assert len(set(names)) == len(names)


def test_clean_sentences_say_the_numbers_that_the_command_has(
    missions: ModuleType, rows: list[tuple[str, dict[str, Any]]]
) -> None:
    for _, row in rows:
        for command in json.loads(row["completion"]):
            if row["slice"] != "noisy" and "altitude_m" in command:
                number = command["altitude_m"]
                spoken = missions._words(number) if number < 100 else str(number)
                assert str(number) in row["prompt"] or spoken in row["prompt"].lower()


def test_the_seed_decides(missions: ModuleType, rows: list[tuple[str, dict[str, Any]]]) -> None:
    assert list(missions.generate(SIZES, 7)) == rows
    assert list(missions.generate(SIZES, 8)) != rows
