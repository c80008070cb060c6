"""What a device tool reads and writes: probes in, logits and times out. Needs numpy.

def main(request: Request) -> None:
session = open_runtime(request.inputs["binary"])
run_probes(request, session.call, runtime="my-runtime", version=session.version)
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

Array = npt.NDArray[Any]

PROBE_INPUTS = "inputs.npy"
PROBE_META = "probes.json"


def read_probes(directory: Path) -> Array:
    """The rows to run. Text: int64 (rows, tokens), padded on the right; attention is causal, so no mask.
    Images: float32 (rows, channels, height, width).
    """
    rows: Array = np.load(directory / PROBE_INPUTS, allow_pickle=False)
    return rows


def run_probes(request: Request, call: Callable[[Array], Array], *, runtime: str, version: str) -> None:
    """Run every probe row, one at a time, and write the outputs `logits` and `timing`.

    call: a row with its batch dimension, int64 (1, tokens) or float32 (1, channels, height, width), to float
    logits (1, tokens, vocabulary) or (1, labels). Raises ToolError for logits that are not finite numbers.
    """
    rows = read_probes(request.inputs["probes"])
    call(rows[:1])  # The first call allocates; it is not timed.
    found, times = [], []
    for index in range(len(rows)):
        started = time.perf_counter()
        logits = np.asarray(call(rows[index : index + 1]), dtype=np.float32)
        times.append((time.perf_counter() - started) * 1000)
        found.append(logits.reshape(logits.shape[-2:] if rows.ndim == 2 else logits.shape[-1:]))
        report(index + 1, len(rows), unit="probes")
    result = np.stack(found)
    if not np.isfinite(result).all():
        raise ToolError("the runtime's logits are not all finite numbers")
    with request.outputs["logits"].open("wb") as stream:
        np.save(stream, result, allow_pickle=False)
    timing = {
        "schema": 1,
        "runtime": runtime,
        "version": version,
        "latency_ms": [round(each, 4) for each in times],
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    request.outputs["timing"].write_text(json.dumps(timing, indent=1) + "\n")
