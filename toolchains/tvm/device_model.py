"""What a device tool does with a compiled model, however its runtime is called. Imports numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelbuild.toolkit.device_answer import answer
from modelbuild.toolkit.device_run import Array, run_probes
from modelbuild.toolkit.request import Request, ToolError

_ALIGNMENT = 64
"""Bytes: what the kernels expect of memory."""


@dataclass(frozen=True)
class DeviceModel:
    """run: a row that lies well in memory -> logits. shape: of a row. classes: of a row of logits.

    version: of the runtime.
    """

    run: Callable[[Array], Array]
    shape: tuple[int, ...]
    classes: int
    version: str

    def __call__(self, row: Array) -> Array:
        """int64 or float32 of `shape` -> float32 logits. Raises ToolError for a row that does not fit."""
        if row.shape != self.shape:
            raise ToolError(
                f"the library takes rows of shape {self.shape}, not {row.shape}",
                "make the binary with the `sequence_length` that the probes have",
            )
        if len(self.shape) != 2:
            return self.run(_aligned(row.astype(np.float32)))
        if not 0 <= row.min() <= row.max() < self.classes:
            raise ToolError(f"a token is not one of the {self.classes} that the model knows")
        return self.run(_aligned(row.astype(np.int64)))


def run_model(request: Request, model: DeviceModel) -> None:
    """Answer the input `probes`; without it, the numbers that a person typed."""
    if "probes" in request.inputs:
        run_probes(request, model, runtime="tvm", version=model.version)
    else:
        answer(request.arguments, model, model.shape, np.int64 if len(model.shape) == 2 else np.float32)


def _aligned(row: Array) -> Array:
    """A copy at an address that is a multiple of the alignment; numpy promises 16 bytes only."""
    room = np.empty(row.nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    copy: Array = room[start : start + row.nbytes].view(row.dtype).reshape(row.shape)
    copy[...] = row
    return copy
