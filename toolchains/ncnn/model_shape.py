"""What a pair of ncnn's files takes, which they do not say themselves: `model.json` beside them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "model.json"


@dataclass(frozen=True)
class ModelShape:
    """input: of a row with its batch dimension. classes: the vocabulary, or the labels."""

    input: tuple[int, ...]
    classes: int

    def write(self, folder: Path) -> None:
        """Write it beside the model."""
        (folder / FILE).write_text(json.dumps({"schema": 1, **asdict(self)}) + "\n")


def read_shape(folder: Path) -> ModelShape:
    """Read what `write` wrote."""
    data = json.loads((folder / FILE).read_text())
    return ModelShape(tuple(data["input"]), data["classes"])
