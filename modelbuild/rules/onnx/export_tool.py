"""Exports any model to a plain ONNX graph in float32, and compares the file with torch."""

from __future__ import annotations

import torch

from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.fixed_shape import FixedImage
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.onnx_dense import CausalLogits, compare_dense, export_dense
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch


def main(request: Request) -> None:
    """Inputs: model. Outputs: onnx (a tree). Params: task and, for language models, sequence_length.

    Packed integer weights are exported as the floats they stand for. The reference is the model as every
    other tool loads it, with its own mask and positions.
    """
    seed_torch(0, request.threads)
    path, directory = request.inputs["model"], request.outputs["onnx"]
    task, config = str(request.params["task"]), read_config(path)
    report(0, 2, unit="stages")
    model = load_dense(path, task)
    wrapped: CausalLogits | FixedImage
    if task == "image_classification":
        size, channels = config.get("image_size"), config.get("num_channels")
        if not isinstance(size, int) or not isinstance(channels, int):
            raise ToolError("the model's config.json does not state `image_size` and `num_channels`")
        example = {"pixel_values": torch.rand(1, channels, size, size)}
        wrapped, reference = FixedImage(model), ImageClassification().load(path)
    else:
        length = int(request.params["sequence_length"])
        example = {"input_ids": torch.randint(int(config["vocab_size"]), (1, length))}
        wrapped, reference = CausalLogits(model, length), LanguageModel().load(path)
    export_dense(wrapped, example, directory)
    report(1, 2, unit="stages")
    report(2, 2, unit="stages", max_difference=compare_dense(reference, example, directory))
