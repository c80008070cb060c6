"""Logits of probes as a `.npy` file, float32: (rows, tokens, vocabulary) or (rows, labels). Needs numpy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.request import ToolError

Array = npt.NDArray[Any]


def write_logits(path: Path, logits: Array) -> None:
    """Raises ToolError for logits that are not all finite numbers."""
    _check_finite(logits, "the model's logits")
    with path.open("wb") as stream:
        np.save(stream, np.ascontiguousarray(logits, dtype=np.float32), allow_pickle=False)


class LogitsFile:
    """One file, read row by row: logits of a large vocabulary are gigabytes. what: whose, for errors."""

    def __init__(self, path: Path, what: str) -> None:
        self.what = what
        try:
            self._array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise ToolError(f"{what} are no array: {error}") from error
        self.shape: tuple[int, ...] = self._array.shape

    def rows(self) -> Iterator[Array]:
        """Each row as float64 (tokens, classes); of an image (1, labels). Raises ToolError for NaN."""
        for row in self._array:
            logits = np.array(row, dtype=np.float64).reshape(-1, self.shape[-1])
            _check_finite(logits, self.what)
            yield logits


def _check_finite(logits: Array, what: str) -> None:
    if not np.isfinite(logits).all():
        raise ToolError(f"{what} are not all finite numbers")
