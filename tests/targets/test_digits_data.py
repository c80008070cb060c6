"""The digits dataset: real images, in splits that share none."""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

GENERATOR = Path(__file__).parents[2] / "targets/digits/digits.py"
ARGS = {"calibration": 10, "eval": 40}


@pytest.fixture(scope="module")
def digits() -> Any:
    spec = importlib.util.spec_from_file_location("digits_generator", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(digits: Any) -> Any:
    return list(digits.generate(ARGS, 7))


def test_no_image_is_in_two_splits_or_twice_in_one(rows: Any) -> None:
    images = [json.dumps(row["pixels"]) for _, row in rows]
    assert len(set(images)) == len(images)


def test_nothing_is_lost_and_splits_are_stratified(rows: Any) -> None:
    from sklearn.datasets import load_digits

    distinct = {image.tobytes() for image in load_digits().images}
    assert len(rows) == len(distinct)
    counts = Counter((split, row["label"]) for split, row in rows)
    assert all(counts["eval", label] == 40 and counts["calibration", label] == 10 for label in range(10))
    assert Counter(split for split, _ in rows)["train"] > 1200


def test_rows_are_8_by_8_images_from_0_to_1(rows: Any) -> None:
    for _, row in rows:
        assert len(row["pixels"]) == 8
        assert all(len(line) == 8 and all(0 <= value <= 1 for value in line) for line in row["pixels"])
    assert max(value for _, row in rows for line in row["pixels"] for value in line) == 1


def test_the_seed_decides_and_nothing_else(digits: Any, rows: Any) -> None:
    assert list(digits.generate(ARGS, 7)) == rows
    assert list(digits.generate(ARGS, 8)) != rows
