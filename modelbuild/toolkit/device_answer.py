"""What `modelbuild run` does with a binary that takes numbers and gives logits. Needs numpy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.request import ToolError

_SHOWN = 5


def answer(
    arguments: Sequence[str],
    call: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    shape: tuple[int, ...],
    dtype: type[np.int64 | np.float32],
) -> None:
    """Print the likeliest tokens, or labels, for the numbers that a person typed.

    shape, dtype: of what `call` takes. Tokens, int64 (1, tokens), may be fewer than fit: attention is
    causal, so what is filled in behind them changes nothing. A picture, float32 (1, channels, height,
    width), has all of its brightnesses. Raises ToolError for anything else.
    """
    row, last = _row(arguments, shape, dtype)
    logits = np.asarray(call(row), dtype=np.float64)[0]
    if logits.ndim == 2:
        logits = logits[last]
    odds = np.exp(logits - logits.max())
    probabilities = odds / odds.sum()
    for index in np.argsort(-probabilities, kind="stable")[:_SHOWN]:
        sys.stdout.write(f"{index} {probabilities[index]:.2%}\n")


def _row(
    arguments: Sequence[str], shape: tuple[int, ...], dtype: type[np.int64 | np.float32]
) -> tuple[npt.NDArray[Any], int]:
    """The row, and the index of the last number that was given."""
    text = len(shape) == 2
    size = int(np.prod(shape))
    hint = f"give 1 to {size} token numbers" if text else f"give {size} brightnesses, from 0 to 1"
    try:
        numbers = np.array(
            [word for each in arguments for word in each.replace(",", " ").split()], dtype=dtype
        )
    except ValueError as error:
        raise ToolError(f"this binary takes numbers: {error}", hint=hint) from error
    if not 0 < len(numbers) <= size or (not text and len(numbers) != size):
        raise ToolError(f"this binary takes {size} numbers, not {len(numbers)}", hint=hint)
    row = np.zeros(size, dtype=dtype)
    row[: len(numbers)] = numbers
    return row.reshape(shape), len(numbers) - 1
