"""Trains an image classifier to answer as its teacher does."""

from __future__ import annotations

from modelbuild.toolkit.distillation import run_distillation
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """See `run_distillation`."""
    run_distillation(request, ImageClassification())
