"""From floats to integers with shared scales, in numpy and as ONNX Runtime rounds. In torch: quantization."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import ToolError

Floats = npt.NDArray[np.float32]


def round_groups(matrix: Floats, bits: int, group: int) -> PackedWeight:
    """Round each run of `group` numbers of a row, which divides it, as ONNX Runtime's quantizer does.

    The number that is farthest from zero becomes -2^(bits-1) exactly, so its scale may be negative.
    """
    rows, columns = matrix.shape
    groups = _finite(matrix).reshape(rows, -1, group)
    at = np.abs(groups).argmax(axis=2)[..., None]
    lowest = -(1 << (bits - 1))
    scales = (np.take_along_axis(groups, at, axis=2) / np.float32(lowest)).astype(np.float32)
    inverse = np.where(scales == 0, np.float32(0), np.float32(1) / np.where(scales == 0, 1, scales))
    # ONNX Runtime adds half and cuts: ties go up.
    codes = np.clip(np.floor(groups * inverse + np.float32(0.5)), lowest, -lowest - 1).astype(np.int8)
    return PackedWeight(codes.reshape(rows, columns), scales[..., 0], None, bits)


def round_rows(matrix: Floats) -> PackedWeight:
    """8 bits, one scale a row, symmetric: what integer matrix products want."""
    largest = np.abs(_finite(matrix)).max(axis=1, keepdims=True)
    scales = np.where(largest == 0, np.float32(1), largest / np.float32(127)).astype(np.float32)
    codes = np.clip(np.rint(matrix / scales), -127, 127).astype(np.int8)
    return PackedWeight(codes, scales, None, 8)


def _finite(matrix: Floats) -> Floats:
    if not np.isfinite(matrix).all():
        raise ToolError("the model holds weights that are not finite numbers")
    return matrix
