"""What device tools do around TVM: rows that do not fit are refused, those that do lie as kernels want them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelbuild.toolkit.device_run import Array
from modelbuild.toolkit.request import ToolError
from toolchains.tvm.device_model import DeviceModel


def model(shape: tuple[int, ...]) -> tuple[DeviceModel, list[Array]]:
    seen: list[Array] = []

    def run(row: Array) -> Array:
        seen.append(row)
        return np.zeros((1, 5), np.float32)

    return DeviceModel(run, shape, 5, "1"), seen


@pytest.mark.parametrize("given", [np.int32, np.int64])
def test_tokens_are_int64_at_an_aligned_address(given: type[Any]) -> None:
    tested, seen = model((1, 3))
    for offset in range(16):
        row = np.arange(offset + 3, dtype=given)[None, offset:] % 5
        tested(row)
        assert seen[-1].dtype == np.int64
        assert seen[-1].ctypes.data % 64 == 0
        assert np.array_equal(seen[-1], row)


def test_pixels_are_float32() -> None:
    tested, seen = model((1, 1, 2, 2))
    tested(np.full((1, 1, 2, 2), 0.25))
    assert seen[0].dtype == np.float32
    assert seen[0].ctypes.data % 64 == 0


@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_that_the_model_lacks_is_refused(token: int) -> None:
    tested, seen = model((1, 3))
    with pytest.raises(ToolError, match="not one of the 5"):
        tested(np.array([[0, token, 1]]))
    assert not seen


def test_a_row_of_another_length_is_refused() -> None:
    tested, _ = model((1, 3))
    with pytest.raises(ToolError, match=r"shape \(1, 3\), not \(1, 4\)"):
        tested(np.zeros((1, 4), np.int64))
