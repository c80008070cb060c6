"""Prunes an image classifier."""

from __future__ import annotations

from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.pruning import run_pruning
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: model, dataset where data is needed. Outputs: model. Params: those of the rule."""
    run_pruning(request, ImageClassification())
