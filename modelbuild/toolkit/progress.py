"""Progress of a running tool, for the person who waits. Standard library only; never part of a key."""

from __future__ import annotations

import json
import os
import sys
import time

_MIN_INTERVAL_S = 0.1
_last_sent = [0.0]


def report(step: int, total: int, unit: str = "steps", **metrics: float | str) -> None:
    """Say that `step` of `total` `unit`s are done; `metrics` such as loss=1.2, tokens_per_s=900.

    Lines go to the descriptor that MODELBUILD_PROGRESS_FD names; without one, to stderr when that is a
    terminal. At most ten a second are sent; the last one (step == total) always is.
    """
    now = time.monotonic()
    if now - _last_sent[0] < _MIN_INTERVAL_S and step < total:
        return
    _last_sent[0] = now
    line = json.dumps({"step": step, "total": total, "unit": unit, "metrics": metrics})
    descriptor = os.environ.get("MODELBUILD_PROGRESS_FD")
    if descriptor is not None:
        try:
            os.write(int(descriptor), line.encode() + b"\n")
        except BlockingIOError:
            return  # The reader is behind; the next line will do.
    elif sys.stderr.isatty():
        sys.stderr.write(f"\r{line}\x1b[K")
