"""Rounding, against ONNX Runtime's own quantizer."""

import numpy as np
import pytest
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.rounding import round_groups, round_rows


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 16), (8, 128)])
def test_groups_are_rounded_as_onnx_runtime_rounds_them(bits: int, group: int) -> None:
    rng = np.random.default_rng(bits)
    matrix = rng.normal(size=(24, 256)).astype(np.float32)
    matrix[3] = 0
    matrix[4, :group] = np.linspace(-1, 1, group)
    blocks, size = 256 // group, group * bits // 8
    packed = np.zeros((24, blocks, size), np.uint8)
    scales = np.zeros((24, blocks), np.float32)
    zeros = np.zeros((24, -(-blocks * bits // 8)), np.uint8)
    quantize = quantize_matmul_4bits if bits == 4 else quantize_matmul_8bits
    quantize(packed, np.ascontiguousarray(matrix.T), scales, zeros, group, 24, 256, True)
    ours = round_groups(matrix, bits, group)
    np.testing.assert_array_equal(ours.scales, scales)
    flat = packed.reshape(24, -1)
    theirs = flat if bits == 8 else np.stack([flat & 15, flat >> 4], axis=-1).reshape(24, 256)
    np.testing.assert_array_equal(ours.codes.astype(np.int16) + (1 << (bits - 1)), theirs)


def test_rows_use_the_whole_range_and_zero_stays_zero() -> None:
    matrix = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32)
    matrix[2] = 0
    weight = round_rows(matrix)
    assert np.abs(weight.codes).max(axis=1).tolist() == [127, 127, 0, *[127] * 6]
    assert np.abs(weight.dequantized() - matrix).max() <= weight.scales.max() / 2 * 1.0001


def test_what_is_no_number_is_refused() -> None:
    matrix = np.array([[1.0, np.nan]], np.float32)
    with pytest.raises(ToolError, match="not finite"):
        round_rows(matrix)
    with pytest.raises(ToolError, match="not finite"):
        round_groups(matrix, 4, 2)
