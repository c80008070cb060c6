"""Compares a runtime's logits with those of the model it was made from, and of its teacher. Needs numpy."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.logits_file import LogitsFile
from modelbuild.toolkit.probes import IGNORED, read_targets
from modelbuild.toolkit.request import Request, ToolError

Array = npt.NDArray[Any]


@dataclass
class _Against:
    """Sums of what one set of logits differs from another by. kl: in nats."""

    positions: int = 0
    max_error: float = 0.0
    error: float = 0.0
    numbers: int = 0
    kl: float = 0.0
    agreed: int = 0
    worst: tuple[int, int] = (0, 0)

    def add(self, row: int, at: Array, ours: Array, theirs: Array) -> None:
        """One row; ours, theirs: (n, classes) at the positions `at`."""
        difference = np.abs(ours - theirs)
        by_position = difference.max(axis=1)
        if float(by_position.max()) > self.max_error or not self.positions:
            self.max_error = float(by_position.max())
            self.worst = (row, int(at[by_position.argmax()]))
        self.error += float(difference.sum())
        self.numbers += difference.size
        p, q = _log_softmax(theirs), _log_softmax(ours)
        self.kl += float((np.exp(p) * (p - q)).sum())
        self.agreed += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        self.positions += len(at)


@dataclass
class _Answers:
    """How right one set of logits is, given the right tokens before each (teacher forcing)."""

    rows: int = 0
    exact: int = 0
    nll: float = 0.0

    def add(self, logits: Array, targets: Array) -> None:
        """One row; logits: (n, classes), targets: (n,)."""
        self.rows += 1
        self.exact += int((logits.argmax(axis=1) == targets).all())
        self.nll -= float(np.take_along_axis(_log_softmax(logits), targets[:, None], axis=1).sum())


def main(request: Request) -> None:
    """Inputs: logits, reference, probes, and teacher where there is one. Outputs: parity."""
    targets = _by_position(read_targets(request.inputs["probes"]))
    logits = LogitsFile(request.inputs["logits"], "the logits of the device")
    others = {"reference": LogitsFile(request.inputs["reference"], "the logits of the parent")}
    if "teacher" in request.inputs:
        others["teacher"] = LogitsFile(request.inputs["teacher"], "the logits of the teacher")
    for other in others.values():
        if other.shape != logits.shape or len(targets) != logits.shape[0]:
            raise ToolError(
                f"{other.what} have the shape {other.shape}, those of the device {logits.shape}",
                "they must come from the same probes, and from models with the same vocabulary or labels",
            )
    against = {name: _Against() for name in others}
    answers = {name: _Answers() for name in ("device", "reference")}
    for row, (ours, *theirs) in enumerate(
        zip(logits.rows(), *(o.rows() for o in others.values()), strict=True)
    ):
        at = np.flatnonzero(targets[row] != IGNORED)
        if not len(at):
            continue
        for name, other_row in zip(others, theirs, strict=True):
            against[name].add(row, at, ours[at], other_row[at])
        answers["device"].add(ours[at], targets[row][at])
        answers["reference"].add(theirs[0][at], targets[row][at])
    _write(request.outputs["parity"], against, answers)


def _write(path: Path, against: dict[str, _Against], answers: dict[str, _Answers]) -> None:
    parent, device, reference = against["reference"], answers["device"], answers["reference"]
    if not parent.positions:
        raise ToolError("no position of the probes counts, so there is nothing to compare")
    data: dict[str, Any] = {
        "schema": 1,
        "rows": device.rows,
        "positions": parent.positions,
        "max_error": parent.max_error,
        "mean_error": parent.error / parent.numbers,
        "worst": {"row": parent.worst[0], "position": parent.worst[1]},
        "kl": max(0.0, parent.kl / parent.positions),
        "top1_agreement": parent.agreed / parent.positions,
        "exact_match": device.exact / device.rows,
        "parent_exact_match": reference.exact / reference.rows,
        "nll": device.nll / parent.positions,
        "parent_nll": reference.nll / parent.positions,
    }
    if "teacher" in against:
        teacher = against["teacher"]
        data["teacher_kl"] = max(0.0, teacher.kl / teacher.positions)
        data["teacher_top1"] = teacher.agreed / teacher.positions
    for name, value in data.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ToolError(
                f"`{name}` is {value}", "logits this large are no model's; look at the device's log"
            )
    path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")


def _by_position(targets: Array) -> Array:
    """(rows, positions); an image has one."""
    return targets.reshape(len(targets), -1)


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
