"""Prunes a language model."""

from __future__ import annotations

from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.pruning import run_pruning
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: model, dataset where data is needed. Outputs: model. Params: those of the rule."""
    run_pruning(request, LanguageModel())
