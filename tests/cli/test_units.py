from __future__ import annotations

import pytest

from modelbuild.cli import units


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_900_000, "1.9 MB"),
        (99_940_000, "99.9 MB"),
        (123_000_000, "123 MB"),
        (999_960_000, "1.0 GB"),
        (14_000_000_000, "14.0 GB"),
        (5 * 10**15, "5.0 PB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.00 s"),
        (0.084, "0.08 s"),
        (0.996, "1.0 s"),
        (41.23, "41.2 s"),
        (59.96, "1 min 00 s"),
        (192, "3 min 12 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


def test_count() -> None:
    assert units.count(1, "target") == "1 target"
    assert units.count(12_345, "target") == "12,345 targets"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("loss", 1.23456, "loss 1.235"),
        ("learning_rate", 0.0003, "learning_rate 0.0003"),
        ("tokens_per_s", 12345.6, "12,346 tokens/s"),
        ("split", "eval", "split eval"),
        ("epoch", 3, "epoch 3"),
        ("rate", 123.4, "rate 123"),
    ],
)
def test_rate(name: str, value: float | str, text: str) -> None:
    assert units.rate(name, value) == text
