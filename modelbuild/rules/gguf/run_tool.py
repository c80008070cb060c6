"""Answers a sentence with a GGUF model in llama.cpp."""

from __future__ import annotations

import sys

from modelbuild.toolkit.llama_cpp import LlamaCpp
from modelbuild.toolkit.request import Request, ToolError

_LENGTH = 512


def main(request: Request) -> None:
    """Inputs: model (GGUF). Arguments: the sentence. Writes the answer to stdout."""
    sentence = " ".join(request.arguments).strip()
    if not sentence:
        raise ToolError("there is no sentence to answer", 'write it after `--`: -- "climb to 40 m"')
    with LlamaCpp(request.inputs["model"], threads=request.threads, sequences=1, length=_LENGTH) as llama:
        prompt = llama.prompt(sentence)
        answer = llama.generate([prompt], llama.length)[0]
        sys.stdout.write(llama.detokenize(answer) + "\n")
