"""The order in which a device computes: tiles, vectors and threads for the kernels. Imports tvm."""

from __future__ import annotations

from typing import Any

import kernels
import tvm
from tvm.tirx import PrimFunc

_COLUMNS = 32
"""Outputs that are summed in registers: 8 vectors of 4 floats, half of what SSE and NEON have."""
_INPUTS = 64
"""Inputs whose weights are unpacked at a time: with 32 outputs 8 KiB of floats, which the L1 cache holds."""
_PARALLEL = 1 << 21
"""Multiplications from which on handing work to other threads pays."""


def schedule_kernels(module: tvm.IRModule) -> tvm.IRModule:
    """The module with its multiplications tiled; everything else stays as TVM lowers it."""
    changed = {}
    for name, function in module.functions.items():
        if isinstance(function, PrimFunc):
            schedule = tvm.s_tir.Schedule(function)
            names = _block_names(schedule)
            if kernels.DENSE in names:
                _dense(schedule, packed=kernels.WEIGHT in names)
                changed[name] = schedule.mod["main"].with_attrs(dict(function.attrs))
    return tvm.IRModule({**module.functions, **changed}, attrs=module.attrs)


def _dense(schedule: Any, *, packed: bool) -> None:
    block = schedule.get_sblock(kernels.DENSE)
    row, column, axis = schedule.get_loops(block)
    rows, columns, inputs = (int(schedule.get(loop).extent) for loop in (row, column, axis))
    outer, inner = schedule.split(column, [None, _largest_divisor(columns, _COLUMNS)])
    chunk, step = schedule.split(axis, [None, _largest_divisor(inputs, _INPUTS)])
    schedule.reorder(outer, chunk, row, step, inner)
    schedule.vectorize(inner)
    if packed:
        weight = schedule.get_sblock(kernels.WEIGHT)
        schedule.compute_at(weight, chunk)
        schedule.vectorize(schedule.get_loops(weight)[-1])
    if rows * columns * inputs >= _PARALLEL:
        schedule.parallel(outer)
    schedule.decompose_reduction(block, chunk)


def _block_names(schedule: Any) -> set[str]:
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    return {schedule.get(block).name_hint for block in blocks}


def _largest_divisor(number: int, limit: int) -> int:
    return max(each for each in range(1, limit + 1) if number % each == 0)
