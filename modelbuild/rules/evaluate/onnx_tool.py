"""Judges an ONNX image classifier in ONNX Runtime; torch only counts, and runs the parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from modelbuild.toolkit.image_classification import Images
from modelbuild.toolkit.image_evaluation import evaluate_images
from modelbuild.toolkit.onnx_runtime import OnnxModel
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.task import Examples


@dataclass(frozen=True)
class OnnxSubject:
    """A file in ONNX Runtime."""

    model: OnnxModel

    def scored(self, examples: Examples, indices: Sequence[int]) -> torch.Tensor:
        """Logits of these images, (n, labels); one image a run where the file takes no more."""
        assert isinstance(examples, Images)
        shape = self.model.inputs.get("pixel_values")
        if shape is None:
            raise ToolError("the ONNX file has no input `pixel_values`")
        at_once = shape[0] if isinstance(shape[0], int) else len(indices)
        pixels = examples.pixels[torch.as_tensor(indices, dtype=torch.int64)]
        parts = [
            self.model.run({"pixel_values": part.numpy()})["logits"] for part in torch.split(pixels, at_once)
        ]
        return torch.cat([torch.from_numpy(part) for part in parts])


def main(request: Request) -> None:
    """Inputs: subject (ONNX), dataset, parent where there is one. Outputs: metrics."""
    seed_torch(0, request.threads)
    source = request.inputs["subject"]
    evaluate_images(request, OnnxSubject(OnnxModel(source, request.threads)), source.stat().st_size)
