"""Exports an image classifier to ONNX, packed weights included, and compares the file with torch."""

from __future__ import annotations

from pathlib import Path

import torch

from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.onnx_export import compare, export
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch

_PROBES = 8


class _Classifier(torch.nn.Module):
    """pixel_values (n, channels, height, width) -> logits (n, labels)."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def main(request: Request) -> None:
    """Inputs: model. Outputs: onnx (a file). Params: opset, dynamic_batch.

    The reference is the model as every other tool loads it, so what is compared is the whole way from the
    checkpoint to ONNX Runtime.
    """
    seed_torch(0, request.threads)
    path, dynamic = request.inputs["model"], bool(request.params["dynamic_batch"])
    task = ImageClassification()
    reference = _Classifier(task.load(path)).eval()
    pixels = torch.rand(_PROBES if dynamic else 1, *_image_shape(path))
    with torch.no_grad():
        expected = reference(pixels).numpy()
    report(0, 2, unit="stages")
    # Two images, not eight: the size of the batch must not have become a constant of the graph.
    example = torch.rand(2 if dynamic else 1, *pixels.shape[1:])
    file = export(
        _Classifier(task.load(path)),
        {"pixel_values": example},
        {f"model.{name.removesuffix('.weight')}": weight for name, weight in _packed(path).items()},
        outputs=["logits"],
        opset=int(request.params["opset"]),
        dynamic={"pixel_values": {0: "batch"}} if dynamic else {},
        metadata={"task": "image_classification"},
    )
    difference = compare(file, {"logits": expected}, {"pixel_values": pixels.numpy()})
    request.outputs["onnx"].write_bytes(file)
    report(2, 2, unit="stages", max_difference=difference)


def _packed(model: Path) -> dict[str, PackedWeight]:
    bits = packed_bits(read_config(model))
    if bits not in (0, 8):
        raise ToolError(f"{bits}-bit weights cannot be exported to ONNX yet", hint="quantize to 8 bits")
    return split_packed(read_tensors(model), bits)[0] if bits else {}


def _image_shape(model: Path) -> tuple[int, int, int]:
    config = read_config(model)
    size = config.get("image_size")
    if not isinstance(size, int) or not isinstance(config.get("num_channels"), int):
        raise ToolError("the model's config.json does not state `image_size` and `num_channels`")
    return config["num_channels"], size, size
