"""Encodes the split `calibration` of a dataset. Imports torch and transformers."""

from __future__ import annotations

from itertools import chain

import numpy as np

from modelbuild.toolkit.image_classification import read_images
from modelbuild.toolkit.language_model import load_vocabulary, read_sequences
from modelbuild.toolkit.request import Request, ToolError

_SPLIT = "calibration"
_ANY_LENGTH = 1 << 20


def main(request: Request) -> None:
    """Inputs: dataset and, for text, model (its tokenizer). Outputs: rows (a .npy file).

    Params: rows, the most there may be, and for text sequence_length.
    """
    dataset, limit = request.inputs["dataset"], int(request.params["rows"])
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float32] | np.dtype[np.int64]]
    if "model" in request.inputs:
        length = int(request.params["sequence_length"])
        vocabulary = load_vocabulary(request.inputs["model"])
        sequences = read_sequences(dataset, _SPLIT, vocabulary, sequence_length=_ANY_LENGTH)
        tokens = np.fromiter(chain.from_iterable(sequences.ids), np.int64)
        count = min(limit, len(tokens) // length)
        if not count:
            raise ToolError(
                f"the split `{_SPLIT}` has {len(tokens)} tokens, less than one row of {length}",
                "give it more texts, or choose a shorter `sequence_length`",
            )
        rows = tokens[: count * length].reshape(count, length)
    else:
        rows = read_images(dataset / f"{_SPLIT}.jsonl", limit=limit).pixels.numpy()
    with request.outputs["rows"].open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)
