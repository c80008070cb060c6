"""Chooses rows of an image dataset. Imports torch and transformers."""

from __future__ import annotations

from modelbuild.toolkit.image_classification import read_images
from modelbuild.toolkit.probes import choose, write_probes
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: dataset. Outputs: probes, a tree. Params: split, rows."""
    split = request.params["split"]
    images = read_images(request.inputs["dataset"] / f"{split}.jsonl")
    chosen = choose(images.slices, int(request.params["rows"]))
    write_probes(
        request.outputs["probes"],
        images.pixels[chosen].numpy(),
        images.labels[chosen].numpy(),
        task="image_classification",
        split=split,
        slices=[images.slices[i] for i in chosen],
    )
