"""What an image classifier answers to probes, in torch. Imports torch and transformers."""

from __future__ import annotations

import torch

from modelbuild.toolkit.device_run import read_probes
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.logits_file import write_logits
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: model, probes. Outputs: logits. Packed weights are dequantized; all is float32."""
    model = ImageClassification().load(request.inputs["model"])
    with torch.inference_mode():
        answer = model(pixel_values=torch.from_numpy(read_probes(request.inputs["probes"])))
    write_logits(request.outputs["logits"], answer.logits.float().numpy())
