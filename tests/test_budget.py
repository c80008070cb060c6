"""Errors of budgets: the numbers, and the nearest format that fits."""

from __future__ import annotations

from modelbuild.budget import check_budget, fits
from modelbuild.errors import AnalysisError
from modelbuild.label import Label
from modelbuild.platform import Budget, PlatformInfo
from modelbuild.runtime_toolchain import Footprint
from modelbuild.testing import assert_golden

GB = 10**9
FORMATS = {
    "gguf:Q8_0": Footprint(disk=8 * GB, weights=8 * GB, kv_cache=GB // 2, runtime=GB // 5),
    "gguf:Q6_K": Footprint(disk=6 * GB, weights=6 * GB, kv_cache=GB // 2, runtime=GB // 5),
    "gguf:Q4_0": Footprint(disk=4 * GB, weights=4 * GB, kv_cache=GB // 2, runtime=GB // 5),
}


def error(format_: str, budget: Budget, formats: dict[str, Footprint] = FORMATS) -> AnalysisError | None:
    platform = PlatformInfo(Label("", "devices", "drone"), {}, budget)
    return check_budget(formats[format_], platform, formats, subject="//targets:binary", format_=format_)


def test_what_fits_to_the_byte_is_no_error() -> None:
    needed = FORMATS["gguf:Q8_0"]
    assert error("gguf:Q8_0", Budget(disk=needed.disk, ram=needed.ram)) is None
    assert error("gguf:Q8_0", Budget()) is None
    assert error("gguf:Q8_0", Budget(ram=needed.ram - 1)) is not None
    assert error("gguf:Q8_0", Budget(disk=needed.disk - 1)) is not None


def test_memory_is_weights_and_cache_and_runtime() -> None:
    assert fits(FORMATS["gguf:Q4_0"], Budget(ram=4_700_000_000))
    assert not fits(FORMATS["gguf:Q4_0"], Budget(ram=4_699_999_999))


def test_the_error_has_the_numbers_and_the_largest_format_that_fits() -> None:
    shown = error("gguf:Q8_0", Budget(disk=64 * GB, ram=7 * GB, context_length=4096))
    assert_golden("budget/nearest.txt", f"{shown}\n")


def test_both_limits_are_told_and_that_nothing_fits() -> None:
    shown = error("gguf:Q6_K", Budget(disk=2 * GB, ram=3 * GB))
    assert_golden("budget/nothing_fits.txt", f"{shown}\n")


def test_a_byte_too_much_is_told_in_bytes() -> None:
    only = {"gguf:Q8_0": FORMATS["gguf:Q8_0"]}
    shown = error("gguf:Q8_0", Budget(disk=8 * GB - 1), only)
    assert_golden("budget/by_a_byte.txt", f"{shown}\n")
