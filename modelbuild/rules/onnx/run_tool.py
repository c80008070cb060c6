"""What `modelbuild run` does with an ONNX image classifier: name what a picture shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.onnx_runtime import OnnxModel
from modelbuild.toolkit.request import Request, ToolError

_INK = " .:-=+*#%@"
_HINT = "give the number of an evaluation image (0, 1, ...), or a file of numbers from 0 to 1"


def main(request: Request) -> None:
    """Inputs: onnx and, where the target names `examples`, dataset. Arguments: images, see `_HINT`."""
    model = OnnxModel(request.inputs["onnx"])
    channels, height, width = (int(size) for size in model.inputs["pixel_values"][1:])
    if not request.arguments:
        raise ToolError("which image?", hint=_HINT)
    for argument in request.arguments:
        label = None
        if argument.isdecimal():
            pixels, label = _example(request.inputs.get("dataset"), int(argument))
        else:
            pixels = _numbers(Path(argument))
        if pixels.size != channels * height * width:
            raise ToolError(f"`{argument}` holds {pixels.size} numbers, not {channels}x{height}x{width}")
        image = pixels.reshape(1, channels, height, width)
        logits = model.run({"pixel_values": image})["logits"][0]
        sys.stdout.write(_drawing(image[0].mean(axis=0)) + _answer(logits, label))


def _example(dataset: Path | None, number: int) -> tuple[npt.NDArray[np.float32], int | None]:
    if dataset is None:
        raise ToolError("the target names no `examples`, so an image is a file", hint=_HINT)
    lines = (dataset / "eval.jsonl").read_text().splitlines()
    if number >= len(lines):
        raise ToolError(f"there are {len(lines)} evaluation images, counted from 0: none is {number}")
    row: dict[str, Any] = json.loads(lines[number])
    return np.array(row["pixels"], dtype=np.float32), int(row["label"])


def _numbers(path: Path) -> npt.NDArray[np.float32]:
    try:
        pixels = np.array(path.read_text().replace(",", " ").split(), dtype=np.float32)
    except OSError as error:
        raise ToolError(f"`{path}` cannot be read: {error.strerror}", hint=_HINT) from error
    except ValueError as error:
        raise ToolError(f"`{path}` holds something that is no number: {error}", hint=_HINT) from error
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise ToolError(f"brightness goes from 0 to 1; `{path}` has {pixels.min():g} to {pixels.max():g}")
    return pixels


def _drawing(image: npt.NDArray[np.float32]) -> str:
    """image: (height, width). Two characters a pixel, which makes them about square."""
    levels = np.rint(image * (len(_INK) - 1)).astype(int)
    return "".join("".join(_INK[level] * 2 for level in row).rstrip() + "\n" for row in levels)


def _answer(logits: npt.NDArray[np.float32], label: int | None) -> str:
    odds = np.exp(logits - logits.max())
    probabilities = odds / odds.sum()
    order = np.argsort(-probabilities, kind="stable")
    others = ", ".join(f"{index} {probabilities[index]:.1%}" for index in order[1:3])
    truth = "" if label is None else f"; a person says {label}"
    return f"{order[0]} ({probabilities[order[0]]:.1%}; then {others}{truth})\n"
