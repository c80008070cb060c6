"""The order in which a device computes: tiles, vectors and threads for multiplications, loops for the rest.

Imports tvm. Without this, TVM multiplies element by element and writes down every step of a chain of small
operations.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import kernels
import tvm
from tiles import Tile, choose_tile, largest_divisor
from tvm.target.codegen import target_has_features
from tvm.tirx import PrimFunc

_MATMUL = "matmul"
"""How TVM calls the block of a multiplication that is none of ours: those of attention."""
_INPUTS = 64
"""Where rows are computed one by one, inputs whose weights are read, and unpacked, at a time: 8 to 16 KiB, to
fit the L1 cache."""
_PARALLEL = 1 << 21
"""Multiplications from which on handing work to other threads pays."""


def schedule_functions(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """The module with every function scheduled. The order of a sum's terms is that of the weight's rows."""
    changed = {}
    for name, function in module.functions.items():
        if isinstance(function, PrimFunc):
            schedule = tvm.s_tir.Schedule(function)
            _inline(schedule)
            for block in _blocks(schedule):
                if schedule.get(block).name_hint in (kernels.DENSE, _MATMUL):
                    _multiply(schedule, block, _floats(target))
            changed[name] = schedule.mod["main"].with_attrs(dict(function.attrs))
    return tvm.IRModule({**module.functions, **changed}, attrs=module.attrs)


def _floats(target: tvm.target.Target) -> int:
    """In a vector. RISC-V without vectors has 32 registers for single floats: two stand for a vector."""
    if target_has_features("avx2", target):
        return 8
    return 2 if "riscv" in str(target.attrs["mtriple"]) else 4


def _multiply(schedule: Any, block: Any, floats: int) -> None:
    """Tile (..., rows, columns, inputs). floats: in a vector."""
    *_, row, column, _ = schedule.get_loops(block)
    tile = choose_tile(_extent(schedule, row), _extent(schedule, column), floats)
    (_sum_in_registers if tile.rows > 1 else _sum_in_chunks)(schedule, block, tile)


def _sum_in_registers(schedule: Any, block: Any, tile: Tile) -> None:
    """A tile of rows and columns at a time, over all inputs; its weights are unpacked before it."""
    parallel = _is_large(schedule, block)
    weights = _packed_weights(schedule, block)
    *batch, row, column, axis = schedule.get_loops(block)
    written = schedule.cache_write(block, 0, "local")
    strip, vector, lane = schedule.split(column, [None, tile.vectors, tile.lanes])
    rows, each = schedule.split(row, [None, tile.rows])
    schedule.reorder(*batch, strip, rows, axis, each, vector, lane)
    schedule.reverse_compute_at(written, rows, preserve_unit_loops=True)
    *_, written_row, written_column = schedule.get_loops(written)
    written_vector, written_lane = schedule.split(written_column, [None, tile.lanes])
    for weight in weights:
        _unpack(schedule, weight, strip, tile.lanes)
    if parallel:
        schedule.parallel(schedule.fuse(*batch, strip))
    for loop in (each, vector, written_row, written_vector):
        schedule.unroll(loop)
    for loop in (lane, written_lane):
        _vectorize(schedule, loop, tile.lanes)
    schedule.decompose_reduction(block, axis)


def _sum_in_chunks(schedule: Any, block: Any, tile: Tile) -> None:
    """A row at a time, over some inputs: the next row finds their weights, unpacked, in the cache."""
    parallel = _is_large(schedule, block)
    *batch, row, column, axis = schedule.get_loops(block)
    strip, vector, lane = schedule.split(column, [None, tile.vectors, tile.lanes])
    inputs = largest_divisor(_extent(schedule, axis), _INPUTS)
    chunk, step = schedule.split(axis, [None, inputs])
    schedule.reorder(*batch, strip, chunk, row, step, vector, lane)
    schedule.unroll(vector)
    _vectorize(schedule, lane, tile.lanes)
    for weight in _packed_weights(schedule, block):
        _unpack(schedule, weight, chunk, tile.lanes)
    if parallel:
        schedule.parallel(schedule.fuse(*batch, strip))
    schedule.decompose_reduction(block, chunk)


def _packed_weights(schedule: Any, block: Any) -> list[Any]:
    return [each for each in schedule.get_producers(block) if schedule.get(each).name_hint == kernels.WEIGHT]


def _unpack(schedule: Any, weight: Any, loop: Any, lanes: int) -> None:
    """Unpack in each turn of `loop` what it needs."""
    schedule.compute_at(weight, loop, preserve_unit_loops=True)
    _, lane = schedule.split(schedule.get_loops(weight)[-1], [None, lanes])
    _vectorize(schedule, lane, lanes)


def _is_large(schedule: Any, block: Any) -> bool:
    return math.prod(_extent(schedule, loop) for loop in schedule.get_loops(block)) >= _PARALLEL


def _extent(schedule: Any, loop: Any) -> int:
    return int(schedule.get(loop).extent)


def _vectorize(schedule: Any, loop: Any, lanes: int) -> None:
    if lanes > 1:
        schedule.vectorize(loop)


def _inline(schedule: Any) -> None:
    """Compute what one step alone reads within that step, so that it is never written down."""
    for block in _blocks(schedule):
        if len(schedule.get_consumers(block)) == 1 and schedule.get(block).name_hint != kernels.WEIGHT:
            # A sum, or what the function returns, cannot be moved; there is no other way to ask.
            with contextlib.suppress(tvm.s_tir.ScheduleError):
                schedule.compute_inline(block)


def _blocks(schedule: Any) -> list[Any]:
    blocks: list[Any] = schedule.get_child_blocks(schedule.get_sblock("root"))
    return blocks
