"""Measures which inputs of each matrix are large over a calibration split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from modelbuild.toolkit.gguf_imatrix import Imatrix, write_imatrix
from modelbuild.toolkit.gguf_model import TensorNames
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch

_TEXTS_AT_ONCE = 16


def main(request: Request) -> None:
    """Inputs: model, dataset. Outputs: imatrix (GGUF). Params: split, limit, sequence_length."""
    seed_torch(0, request.threads)
    params, model = request.params, request.inputs["model"]
    split = str(params["split"])
    matrix = measure(
        model, request.inputs["dataset"], split, int(params["limit"]), int(params["sequence_length"])
    )
    write_imatrix(request.outputs["imatrix"], matrix, split)


def measure(model: Path, dataset: Path, split: str, limit: int, sequence_length: int) -> Imatrix:
    """Sums over all tokens of the texts, prompts included: a device computes those too.

    As in llama.cpp the matrices of the layers are measured, the output matrix is not. Sums are float64.
    """
    task = LanguageModel()
    loaded = task.load(model)
    examples = task.examples(dataset, split, model, limit=limit, sequence_length=sequence_length)
    if not examples.ids:
        raise ToolError(f"the split `{split}` has no texts")
    names = TensorNames(read_config(model))
    sums: dict[str, torch.Tensor] = {}
    real = torch.empty(0, dtype=torch.bool)
    handles = []

    def observe(name: str) -> Any:
        def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            found = inputs[0][real].double().square().sum(0)
            sums[name] = sums[name] + found if name in sums else found

        return hook

    for module_name, module in loaded.named_modules():
        if isinstance(module, torch.nn.Linear) and ".layers." in module_name:
            name = names[f"{module_name}.weight"]
            handles.append(module.register_forward_pre_hook(observe(name)))
    count = len(examples.ids)
    with torch.inference_mode():
        for first in range(0, count, _TEXTS_AT_ONCE):
            indices = range(first, min(first + _TEXTS_AT_ONCE, count))
            batch = task.batch(examples, indices)
            lengths = torch.tensor([len(examples.ids[i]) for i in indices])
            real = torch.arange(batch.inputs["input_ids"].shape[1]) < lengths[:, None]
            loaded(**batch.inputs, use_cache=False)
            report(indices[-1] + 1, count, unit="texts")
    for handle in handles:
        handle.remove()
    tokens = sum(examples.lengths)
    if not all(torch.isfinite(each).all() for each in sums.values()):
        raise ToolError("the model's hidden states are not all finite numbers")
    return Imatrix({name: each.numpy().astype(np.float32) for name, each in sums.items()}, tokens, count)
