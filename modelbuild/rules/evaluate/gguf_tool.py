"""Judges a GGUF file in llama.cpp: its tokenizer, its kernels, its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from modelbuild.toolkit.language_model import LanguageModel, Sequences, load_vocabulary
from modelbuild.toolkit.llama_cpp import LlamaCpp
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.task import Examples
from modelbuild.toolkit.text_evaluation import TorchWriter, check_same_tokens, evaluate_text

_TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class LlamaWriter:
    """A model in llama.cpp, and its tokenizer."""

    llama: LlamaCpp

    @property
    def bos(self) -> int:
        """What every sequence starts with."""
        return self.llama.bos

    @property
    def eos(self) -> int:
        """What every completion ends with."""
        return self.llama.eos

    @property
    def pad(self) -> int:
        """Never read: llama.cpp takes texts of any length together."""
        return self.llama.eos

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens around them. A control token in a dataset is one, as in torch."""
        return [self.llama.tokenize(text, special=True) for text in texts]

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model reads before it answers."""
        return [self.llama.prompt(text, special=True) for text in texts]

    def byte_length(self, token: int) -> int:
        """Bytes of text that a token stands for."""
        return len(self.llama.piece(token))

    def scored(self, examples: Examples, indices: Sequence[int]) -> torch.Tensor:
        """Logits of the scored tokens."""
        assert isinstance(examples, Sequences)
        logits = self.llama.logits([examples.ids[i][:-1] for i in indices])
        rows = [part[examples.starts[i] - 1 :] for i, part in zip(indices, logits, strict=True)]
        return torch.cat([torch.from_numpy(part) for part in rows])

    def answers(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[str]:
        """Greedy answers."""
        texts: list[str] = []
        for start in range(0, len(prompts), _TEXTS_AT_ONCE):
            group = prompts[start : start + _TEXTS_AT_ONCE]
            texts += [self.llama.detokenize(ids) for ids in self.llama.generate(group, max_tokens)]
            report(start + len(group), len(prompts), unit="answers")
        return texts


def main(request: Request) -> None:
    """Inputs: subject (GGUF), dataset, parent where there is one. Outputs: metrics."""
    seed_torch(0, request.threads)
    source = request.inputs["subject"]
    length = int(request.params["sequence_length"])
    with LlamaCpp(source, threads=request.threads, sequences=_TEXTS_AT_ONCE, length=length) as llama:
        subject, parent = LlamaWriter(llama), None
        if "parent" in request.inputs:
            model, task = request.inputs["parent"], LanguageModel()
            parent = TorchWriter(task, task.load(model), load_vocabulary(model))
            check_same_tokens(request, subject, parent.vocabulary)
        evaluate_text(request, subject, subject, parent, source.stat().st_size)
