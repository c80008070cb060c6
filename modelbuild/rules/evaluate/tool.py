"""Judges a language model in torch."""

from __future__ import annotations

from pathlib import Path

from modelbuild.toolkit.language_model import LanguageModel, load_vocabulary
from modelbuild.toolkit.model_tree import weights_size
from modelbuild.toolkit.request import Request
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.text_evaluation import TorchWriter, check_same_tokens, evaluate_text


def main(request: Request) -> None:
    """Inputs: subject, dataset, and parent where there is one. Outputs: metrics."""
    seed_torch(0, request.threads)
    source = request.inputs["subject"]
    size = weights_size(source)
    subject, parent = _load(source), None
    if "parent" in request.inputs:
        parent = _load(request.inputs["parent"])
        check_same_tokens(request, subject.vocabulary, parent.vocabulary)
    evaluate_text(request, subject, subject.vocabulary, parent, size)


def _load(model: Path) -> TorchWriter:
    task = LanguageModel()
    return TorchWriter(task, task.load(model), load_vocabulary(model))
