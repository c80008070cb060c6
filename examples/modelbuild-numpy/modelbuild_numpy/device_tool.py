"""Runs an archive with NumPy: logits of probes, or what a picture shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from archive import Array, read_archive
from vit import VisionTransformer

from modelbuild.toolkit.device_run import run_probes
from modelbuild.toolkit.request import Request, ToolError

_HINT = "name a JSON file with its brightnesses, rows of numbers from 0 to 1"


def main(request: Request) -> None:
    """Inputs: binary, and probes or else arguments. Outputs: logits, timing; or answers on stdout."""
    model = VisionTransformer(read_archive(request.inputs["binary"]))
    if "probes" in request.inputs:
        run_probes(request, model.logits, runtime="numpy", version=np.__version__)
        return
    if not request.arguments:
        raise ToolError("which picture?", hint=_HINT)
    for argument in request.arguments:
        logits = model.logits(_picture(Path(argument)))[0]
        odds = np.exp(logits - logits.max())
        best = int(odds.argmax())
        sys.stdout.write(f"{argument}: {best} ({odds[best] / odds.sum():.1%})\n")


def _picture(path: Path) -> Array:
    """(1, channels, height, width), of a file with height x width, or channels x height x width."""
    try:
        pixels = np.array(json.loads(path.read_text()), dtype=np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise ToolError(f"`{path}` is no picture: {error}", hint=_HINT) from error
    if pixels.ndim not in (2, 3):
        raise ToolError(f"`{path}` has {pixels.ndim} dimensions, not 2 or 3", hint=_HINT)
    return pixels.reshape(1, -1, *pixels.shape[-2:])
