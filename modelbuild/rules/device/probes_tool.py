"""Chooses rows of a text dataset and encodes them. Imports torch and transformers."""

from __future__ import annotations

import shutil

import numpy as np

from modelbuild.toolkit.evaluation import read_task
from modelbuild.toolkit.language_model import load_vocabulary, read_sequences
from modelbuild.toolkit.probes import IGNORED, choose, write_probes
from modelbuild.toolkit.request import Request

_ANY_LENGTH = 1 << 40


def main(request: Request) -> None:
    """Inputs: dataset, tokenizer. Outputs: probes, a tree. Params: split, rows, length."""
    split, length = request.params["split"], int(request.params["length"])
    dataset, tokenizer = request.inputs["dataset"], request.inputs["tokenizer"]
    task = read_task(dataset)
    # A text is cut into pieces that fit; a prompt with its completion fits or is left out.
    longest = length if task == "language_modeling" else _ANY_LENGTH
    sequences = read_sequences(dataset, split, load_vocabulary(tokenizer), sequence_length=longest)
    fitting = [i for i, tokens in enumerate(sequences.lengths) if tokens <= length]
    slices = [sequences.slices[i] for i in fitting]
    chosen = choose(slices, int(request.params["rows"]))
    inputs = np.full((len(chosen), length), sequences.pad, dtype=np.int64)
    targets = np.full_like(inputs, IGNORED)
    for row, at in enumerate(chosen):
        ids, start = sequences.ids[fitting[at]], sequences.starts[fitting[at]]
        inputs[row, : len(ids)] = ids
        targets[row, start - 1 : len(ids) - 1] = ids[start:]
    directory = request.outputs["probes"]
    write_probes(
        directory,
        inputs,
        targets,
        task=task,
        split=split,
        slices=[slices[i] for i in chosen],
        left_out=len(sequences.lengths) - len(fitting),
    )
    shutil.copyfile(tokenizer / "tokenizer.json", directory / "tokenizer.json")
