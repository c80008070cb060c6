"""How a multiplication is cut: what one turn of the innermost loops computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

_SUMS = 12
"""Vectors that are summed at a time: of the 16 registers of SSE, AVX and 32-bit NEON, what weights and inputs
leave."""
_ROWS = 6
"""Rows of them, at most: so often a vector of weights is used once it is loaded."""
_SUMS_OF_A_ROW = 8


@dataclass(frozen=True)
class Tile:
    """Of rows x vectors x lanes outputs; each divides what it is a part of.

    lanes: a power of two, since LLVM loads a vector of 48 element by element.
    """

    rows: int
    vectors: int
    lanes: int


def choose_tile(rows: int, columns: int, floats: int) -> Tile:
    """For rows x columns outputs. floats: in a vector of the CPU, a power of two."""
    lanes = math.gcd(columns, floats)
    together = largest_divisor(rows, _ROWS)
    sums = _SUMS // together if together > 1 else _SUMS_OF_A_ROW
    return Tile(together, largest_divisor(columns // lanes, sums), lanes)


def largest_divisor(number: int, limit: int) -> int:
    """The largest one of `number` up to `limit`."""
    return max(each for each in range(1, limit + 1) if number % each == 0)
