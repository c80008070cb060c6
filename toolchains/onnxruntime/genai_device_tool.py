"""Runs a GenAI folder on the device's CPU, through ONNX Runtime GenAI."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime_genai

from modelbuild.toolkit.device_run import run_probes
from modelbuild.toolkit.request import Request, ToolError

_ANSWER_TOKENS = 128


def main(request: Request) -> None:
    """Inputs: binary (a tree) and, to be asked, probes. Outputs then: logits, timing.

    Arguments, from `modelbuild run`: a sentence, which is answered.
    """
    folder = request.inputs["binary"]
    config = onnxruntime_genai.Config(str(folder))
    options = {"session_options": {"intra_op_num_threads": request.threads}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    model = onnxruntime_genai.Model(config)

    def call(row: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        generator = _generator(model, row.shape[1] + 1)
        generator.append_tokens(row.astype(np.int32))
        logits: npt.NDArray[np.float32] = generator.get_output("logits")
        return logits

    if "probes" in request.inputs:
        version = importlib.metadata.version("onnxruntime-genai")
        run_probes(request, call, runtime="onnxruntime-genai", version=version)
    elif not request.arguments:
        raise ToolError("what is the model to answer?", hint="give it a sentence")
    else:
        sys.stdout.write(_answer(model, folder, " ".join(request.arguments)) + "\n")


def _generator(model: onnxruntime_genai.Model, length: int) -> onnxruntime_genai.Generator:
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(max_length=length, do_sample=False)
    return onnxruntime_genai.Generator(model, parameters)


def _answer(model: onnxruntime_genai.Model, folder: Path, sentence: str) -> str:
    config = json.loads((folder / "genai_config.json").read_text())["model"]
    extra = folder / "modelbuild.json"
    suffix = json.loads(extra.read_text()).get("prompt_suffix", "\n") if extra.is_file() else "\n"
    tokenizer = onnxruntime_genai.Tokenizer(model)
    prompt = [int(config["bos_token_id"]), *(int(token) for token in tokenizer.encode(sentence + suffix))]
    generator = _generator(model, min(int(config["context_length"]), len(prompt) + _ANSWER_TOKENS))
    generator.append_tokens(np.array([prompt], np.int32))
    found: list[int] = []
    while not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    stop = config["eos_token_id"]
    ends = stop if isinstance(stop, list) else [stop]
    return str(tokenizer.decode([token for token in found if token not in ends]))
