"""Computes what an image classifier answers over the training split."""

from __future__ import annotations

from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.request import Request
from modelbuild.toolkit.teacher_logits import run_teacher_logits


def main(request: Request) -> None:
    """See `run_teacher_logits`."""
    run_teacher_logits(request, ImageClassification())
