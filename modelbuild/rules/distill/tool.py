"""Distils a language model."""

from __future__ import annotations

from modelbuild.toolkit.distillation import run_distillation
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """See `run_distillation`."""
    run_distillation(request, LanguageModel())
