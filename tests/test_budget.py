"""Budgets: the numbers, and the nearest format that fits."""

from __future__ import annotations

from modelbuild.budget import footprint_breakdown, nearest_fitting, over_budget
from modelbuild.platform import Budget
from modelbuild.runtime_toolchain import Footprint

GB = 10**9
FORMATS = {
    "gguf:Q8_0": Footprint(disk=8 * GB, weights=8 * GB, kv_cache=GB // 2, runtime=GB // 5),
    "gguf:Q6_K": Footprint(disk=6 * GB, weights=6 * GB, kv_cache=GB // 2, runtime=GB // 5),
    "gguf:Q4_0": Footprint(disk=4 * GB, weights=4 * GB, kv_cache=GB // 2, runtime=GB // 5),
}
LARGE = FORMATS["gguf:Q8_0"]


def test_what_fits_to_the_byte_is_not_over_budget() -> None:
    assert not over_budget(LARGE, Budget(disk=LARGE.disk, ram=LARGE.ram))
    assert not over_budget(LARGE, Budget(context_length=10**9, latency_ms=0.1))


def test_memory_is_weights_and_cache_and_runtime() -> None:
    assert not over_budget(FORMATS["gguf:Q4_0"], Budget(ram=4_700_000_000))
    assert over_budget(FORMATS["gguf:Q4_0"], Budget(ram=4_699_999_999))


def test_every_limit_is_told_with_its_numbers() -> None:
    assert over_budget(LARGE, Budget(disk=2 * GB, ram=7 * GB)) == (
        "disk: 8.0 GB of 2.0 GB, 6.0 GB too much",
        "memory: 8.7 GB of 7.0 GB, 1.7 GB too much",
    )


def test_a_byte_too_much_is_told_in_bytes() -> None:
    assert over_budget(LARGE, Budget(disk=LARGE.disk - 1)) == (
        "disk: 8,000,000,000 of 7,999,999,999 bytes, 1 B too much",
    )


def test_a_breakdown_adds_up() -> None:
    assert footprint_breakdown(LARGE, Budget(context_length=4096)) == (
        "on disk 8.0 GB; in memory weights 8.0 GB + KV cache 500 MB for 4,096 tokens + runtime 200 MB = 8.7 GB"
    )


def test_the_nearest_format_is_the_largest_that_fits() -> None:
    assert nearest_fitting(FORMATS, Budget(ram=7 * GB)).startswith("`gguf:Q6_K` fits: on disk 6.0 GB")
    assert nearest_fitting(FORMATS, Budget(ram=7 * GB, disk=5 * GB)).startswith("`gguf:Q4_0` fits")


def test_of_equals_the_hint_names_the_one_that_says_more() -> None:
    formats = {"gguf:auto": Footprint(9, 9), "gguf:F32": Footprint(9, 9), "gguf:Q8_0": Footprint(3, 3)}
    assert nearest_fitting(formats, Budget(disk=9)).startswith("`gguf:F32` fits")


def test_when_nothing_fits_the_hint_says_what_comes_nearest() -> None:
    hint = nearest_fitting(FORMATS, Budget(ram=GB))
    assert hint.startswith(
        "no format fits, a smaller model, or a shorter `context_length` of the platform, might; `gguf:Q4_0`"
    )
    assert hint.endswith("= 4.7 GB")
    assert "context_length" not in nearest_fitting({"onnx:fp32": Footprint(9, 9)}, Budget(ram=1))
