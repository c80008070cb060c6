"""The order in which a device computes: tiles, vectors and threads for multiplications, loops for the rest.

Imports tvm. Without this, TVM multiplies element by element and writes down every step of a chain of small
operations.
"""

from __future__ import annotations

import contextlib
from typing import Any

import kernels
import tvm
from tvm.target.codegen import target_has_features
from tvm.tirx import PrimFunc

_MATMUL = "matmul"
"""How TVM calls the block of a multiplication that is none of ours: those of attention."""
_ACCUMULATORS = 8
"""Vectors of outputs that are summed at a time: half of the registers that SSE, AVX and NEON have."""
_INPUTS = 64
"""Inputs whose weights are unpacked at a time: 8 to 16 KiB of floats, which the L1 cache holds."""
_PARALLEL = 1 << 21
"""Multiplications from which on handing work to other threads pays."""


def schedule_functions(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """The module with every function scheduled. The order of a sum's terms is that of the weight's rows."""
    changed = {}
    floats = 8 if target_has_features("avx2", target) else 4
    for name, function in module.functions.items():
        if isinstance(function, PrimFunc):
            schedule = tvm.s_tir.Schedule(function)
            _inline(schedule)
            for block in _blocks(schedule):
                if schedule.get(block).name_hint in (kernels.DENSE, _MATMUL):
                    _multiply(schedule, block, _ACCUMULATORS * floats)
            changed[name] = schedule.mod["main"].with_attrs(dict(function.attrs))
    return tvm.IRModule({**module.functions, **changed}, attrs=module.attrs)


def _multiply(schedule: Any, block: Any, columns: int) -> None:
    """Tile (..., rows, columns, inputs); unpack the weights of a tile just before it."""
    *batch, row, column, axis = schedule.get_loops(block)
    work = 1
    for loop in (*batch, row, column, axis):
        work *= int(schedule.get(loop).extent)
    outer, inner = schedule.split(column, [None, _largest_divisor(schedule, column, columns)])
    chunk, step = schedule.split(axis, [None, _largest_divisor(schedule, axis, _INPUTS)])
    schedule.reorder(*batch, outer, chunk, row, step, inner)
    schedule.vectorize(inner)
    for weight in schedule.get_producers(block):
        if schedule.get(weight).name_hint == kernels.WEIGHT:
            schedule.compute_at(weight, chunk)
            schedule.vectorize(schedule.get_loops(weight)[-1])
    if work >= _PARALLEL:
        schedule.parallel(schedule.fuse(*batch, outer))
    schedule.decompose_reduction(block, chunk)


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


def _largest_divisor(schedule: Any, loop: Any, limit: int) -> int:
    extent = int(schedule.get(loop).extent)
    return max(each for each in range(1, limit + 1) if extent % each == 0)
