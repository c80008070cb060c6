"""Rounds a language model's weights to the nearest values of an integer grid."""

from __future__ import annotations

from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.quantization import run_rounding
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: model. Outputs: model. Params: bits, group_size, symmetric, observer, embeddings."""
    run_rounding(request, LanguageModel())
