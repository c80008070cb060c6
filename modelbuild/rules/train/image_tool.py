"""Trains an image classifier from nothing."""

from __future__ import annotations

from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.request import Request
from modelbuild.toolkit.training import run_training


def main(request: Request) -> None:
    """See `run_training`."""
    run_training(request, ImageClassification())
