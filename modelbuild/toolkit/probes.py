"""Probes: the same few inputs for every runtime of a model, and what counts in the answers. Needs numpy.

A probes tree holds

    inputs.npy    text: int64 (rows, length), padded on the right; images: float32 (rows, channels, height,
                  width)
    targets.npy   text: int64 (rows, length), at each position the token that really follows, -1 where the
                  answer of a model does not count; images: int64 (rows,), the label
    probes.json   schema, task, split, rows, length, positions (that count), left_out (rows that were too
                  long), slices (of each row)
    tokenizer.json   text: what encoded the rows
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.request import ToolError

IGNORED = -1
"""The target at a position that does not count."""

Array = npt.NDArray[Any]


def choose(slices: Sequence[str], count: int) -> list[int]:
    """At most `count` examples, as many of each slice as of any other, spread over each; in their order.

    Where a slice has fewer, the others fill up. Nothing is random: equal data gives equal probes.
    """
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(slices):
        groups.setdefault(name, []).append(index)
    quota = dict.fromkeys(sorted(groups), 0)
    left = min(count, len(slices))
    while left:
        for name in quota:
            if left and quota[name] < len(groups[name]):
                quota[name] += 1
                left -= 1
    return sorted(
        groups[name][at * len(groups[name]) // wanted]
        for name, wanted in quota.items()
        for at in range(wanted)
    )


def write_probes(
    directory: Path,
    inputs: Array,
    targets: Array,
    *,
    task: str,
    split: str,
    slices: Sequence[str],
    left_out: int = 0,
) -> None:
    """Write the arrays and `probes.json` into a new directory. Raises ToolError when there are no rows."""
    if not len(inputs):
        raise ToolError(
            f"`{split}` has no row that fits the probes", f"{left_out} rows are too long: raise `length`"
        )
    directory.mkdir(parents=True)
    for name, array in (("inputs", inputs), ("targets", targets)):
        with (directory / f"{name}.npy").open("wb") as stream:
            np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    meta = {
        "schema": 1,
        "task": task,
        "split": split,
        "rows": len(inputs),
        "length": int(inputs.shape[1]) if inputs.ndim == 2 else 0,
        "positions": int((targets != IGNORED).sum()),
        "left_out": left_out,
        "slices": list(slices),
    }
    (directory / "probes.json").write_text(json.dumps(meta, indent=1) + "\n")


def read_targets(directory: Path) -> Array:
    """What follows each position, or each image's label; IGNORED where nothing counts."""
    targets: Array = np.load(directory / "targets.npy", allow_pickle=False)
    return targets
