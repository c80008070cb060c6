"""Judges an image classifier in torch."""

from __future__ import annotations

from modelbuild.toolkit.evaluation import TorchSubject
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.image_evaluation import evaluate_images
from modelbuild.toolkit.model_tree import weights_size
from modelbuild.toolkit.request import Request
from modelbuild.toolkit.seeding import seed_torch


def main(request: Request) -> None:
    """Inputs: subject, dataset, parent where there is one. Outputs: metrics. Params: split, limit, format."""
    seed_torch(0, request.threads)
    task, source = ImageClassification(), request.inputs["subject"]
    evaluate_images(request, TorchSubject(task, task.load(source)), weights_size(source))
