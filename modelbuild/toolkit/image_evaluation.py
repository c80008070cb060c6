"""Quality of what classifies images, slice by slice. Imports torch and transformers."""

from __future__ import annotations

from modelbuild.toolkit.evaluation import (
    Subject,
    TorchSubject,
    by_slice,
    class_metrics,
    parent_metrics,
    score,
    write_metrics,
)
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.request import Request


def evaluate_images(request: Request, subject: Subject, size: int) -> None:
    """Judge `subject` on the images of inputs `dataset`, against `parent` where there is one; write metrics.

    size: bytes of the subject's weights.
    """
    task, params = ImageClassification(), request.params
    examples = task.examples(request.inputs["dataset"], params["split"], None, limit=int(params["limit"]))
    parent = request.inputs.get("parent")
    scores = score(task, examples, subject, TorchSubject(task, task.load(parent)) if parent else None)
    slices = {
        name: {"count": len(group), **class_metrics(part), **parent_metrics(part)}
        for name, group in by_slice(examples.slices).items()
        for part in [[scores[i] for i in group]]
    }
    write_metrics(request, "image_classification", size, slices)
