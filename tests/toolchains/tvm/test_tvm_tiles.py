"""How multiplications are cut; the rule, which cannot import a tool's modules, predicts sizes by the same choice."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from toolchains.tvm.rule import summed_vectors
from toolchains.tvm.tiles import Tile, choose_tile


def test_tiles_fill_the_registers() -> None:
    assert choose_tile(64, 256, 8) == Tile(4, 2, 8)
    assert choose_tile(48, 192, 4) == Tile(6, 2, 4)
    assert choose_tile(197, 768, 8) == Tile(1, 8, 8)
    assert choose_tile(1, 10, 8) == Tile(1, 5, 2)


@given(rows=st.integers(1, 600), columns=st.integers(1, 4096), floats=st.sampled_from([2, 4, 8]))
@example(rows=17, columns=17, floats=8)
def test_tiles_divide_what_they_cut(rows: int, columns: int, floats: int) -> None:
    tile = choose_tile(rows, columns, floats)
    assert rows % tile.rows == 0
    assert columns % (tile.vectors * tile.lanes) == 0
    assert tile.lanes == math.gcd(columns, floats)
    assert tile.rows * tile.vectors <= 12
    assert summed_vectors(rows, columns, floats) == tile.rows * tile.vectors
