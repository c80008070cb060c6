"""Compares two safetensors or .npy files tensor by tensor; prints JSON. Imports numpy and safetensors.

    python -m modelbuild.toolkit.compare OLD NEW

`differences`: tensor -> largest absolute difference, relative to the largest magnitude of the old one.
`problems`: what is no rounding: other names, shapes or types, values that are no numbers, or a difference
above TOLERANCE.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

_NPY = b"\x93NUMPY"
TOLERANCE = 1e-3
"""Relative to the tensor's largest magnitude; float32 sums in another order stay far below it."""


def compare_files(old_path: str, new_path: str) -> dict[str, Any]:
    """The report described above."""
    old, new = _tensors(old_path), _tensors(new_path)
    problems = [f"tensor `{name}` is in one of the two only" for name in sorted(old.keys() ^ new.keys())]
    differences: dict[str, float] = {}
    for name in sorted(old.keys() & new.keys()):
        a, b = old[name], new[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            problems.append(f"tensor `{name}`: {a.dtype}{a.shape} became {b.dtype}{b.shape}")
            continue
        if a.size == 0 or np.array_equal(a, b):
            continue
        scale = max(float(np.abs(a.astype(np.float64)).max()), 1e-30)
        difference = float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()) / scale
        differences[name] = difference
        if not difference <= TOLERANCE:
            problems.append(f"tensor `{name}`: relative difference {difference:.3g}, above {TOLERANCE:g}")
    return {"differences": differences, "problems": problems}


def _tensors(path: str) -> dict[str, npt.NDArray[Any]]:
    """By name; the one array of a .npy file has none. Blobs have no suffix, so the content decides."""
    with open(path, "rb") as stream:
        if stream.read(len(_NPY)) != _NPY:
            tensors: dict[str, npt.NDArray[Any]] = load_file(path)
            return tensors
    return {"array": np.load(path, allow_pickle=False)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compare_files(sys.argv[1], sys.argv[2])) + "\n")
