"""Runs a GGUF file in llama.cpp on the device: logits of probes, or the answer to a sentence."""

from __future__ import annotations

import importlib.metadata
import sys

import numpy as np

from modelbuild.toolkit.device_run import Array, read_probes, run_probes
from modelbuild.toolkit.llama_cpp import LlamaCpp
from modelbuild.toolkit.request import Request, ToolError

_ANSWER_LENGTH = 512


def main(request: Request) -> None:
    """Inputs: binary, and probes or else a sentence. Outputs: logits, timing; or the answer on stdout."""
    if "probes" in request.inputs:
        _run_probes(request)
    else:
        _answer(request)


def _run_probes(request: Request) -> None:
    rows = read_probes(request.inputs["probes"])
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer):
        raise ToolError("llama.cpp takes rows of tokens here, and these probes are something else")
    version = importlib.metadata.version("xllamacpp")
    width = rows.shape[1]
    with LlamaCpp(request.inputs["binary"], threads=request.threads, sequences=1, length=width) as llama:

        def call(row: Array) -> Array:
            return llama.logits([row[0].tolist()])[0][None]

        run_probes(request, call, runtime="llama.cpp", version=f"xllamacpp {version}")


def _answer(request: Request) -> None:
    sentence = " ".join(request.arguments).strip()
    if not sentence:
        raise ToolError("there is no sentence to answer", 'write it after `--`: -- "climb to 40 m"')
    binary = request.inputs["binary"]
    with LlamaCpp(binary, threads=request.threads, sequences=1, length=_ANSWER_LENGTH) as llama:
        answer = llama.generate([llama.prompt(sentence)], llama.length)[0]
        sys.stdout.write(llama.detokenize(answer) + "\n")
