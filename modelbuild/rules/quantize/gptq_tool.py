"""Quantizes a language model with GPTQ (Frantar et al. 2022) as llmcompressor implements it."""

from __future__ import annotations

import os
import sys
from functools import partialmethod
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.model_tree import weight_files
from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.quantization import (
    Grid,
    Layer,
    compare,
    embedding_names,
    linear_names,
    read_grid,
    round_embeddings,
    write_quantized,
)
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch


def main(request: Request) -> None:
    """Inputs: model, calibration. Outputs: model. Params: those of the rule."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    params = request.params
    grid = read_grid(params)
    seed_torch(int(params["seed"]), request.threads)
    source = request.inputs["model"]
    weight_files(source)
    task = LanguageModel()
    model = task.load(source)
    names = linear_names(model)
    originals = {}
    for name in names:
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        grid.check(f"{name}.weight", weight.shape[1])
        originals[name] = weight.detach().clone()
    layers: dict[str, Layer] = round_embeddings(model, grid) if params["embeddings"] == "rtn" else {}
    samples = _samples(task, request.inputs["calibration"], source, int(params["calibration_samples"]))
    report(0, len(names), unit="layers")
    _run_gptq(model, grid, samples, float(params["damping"]))
    for done, name in enumerate(names, 1):
        quantized = _codes(name, model.get_submodule(name), grid)
        layers[name] = compare(originals[name], quantized, "gptq")
        report(done, len(names), unit="layers")
    write_quantized(source, request.outputs["model"], layers, grid, "gptq", model)


def _samples(task: LanguageModel, calibration: Path, model: Path, count: int) -> list[dict[str, list[int]]]:
    examples = task.examples(calibration, "calibration", model, limit=count)
    if len(examples.ids) < count:
        raise ToolError(
            f"the split `calibration` has {len(examples.ids)} examples, fewer than {count}",
            "set `calibration_samples` lower, or generate more",
        )
    return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in examples.ids]


def _run_gptq(
    model: torch.nn.Module, grid: Grid, samples: list[dict[str, list[int]]], damping: float
) -> None:
    """Leave each linear layer with weights on the grid, and its scales and zeros beside them."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415 - imported after the environment is set
    from llmcompressor import oneshot  # noqa: PLC0415
    from llmcompressor.modifiers.gptq import GPTQModifier  # noqa: PLC0415
    from loguru import logger  # noqa: PLC0415

    logger.remove()
    logger.add(sys.stderr, filter=lambda record: record["level"].name in ("WARNING", "ERROR"))
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # Bars are no log; `report` speaks instead.
    arguments: dict[str, Any] = {**grid.scheme(), "scale_dtype": torch.float16}
    arguments["observer"] = f"memoryless_{grid.observer}"
    modifier = GPTQModifier(
        config_groups={
            "group_0": QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
        },
        ignore=embedding_names(model),
        actorder=None,
        dampening_frac=damping,
    )
    oneshot(
        model=model,
        recipe=[modifier],
        dataset=Dataset.from_list(samples),
        max_seq_length=max(len(sample["input_ids"]) for sample in samples),
        num_calibration_samples=len(samples),
        shuffle_calibration_samples=False,  # Shuffling is not seeded and changes the bytes.
    )
    # llmcompressor rounds to nearest where a Hessian cannot be inverted, and only logs it.
    fallback = modifier._rtn_fallback_module_names  # noqa: SLF001 - there is no public name for it
    if fallback:
        raise ToolError(
            f"GPTQ failed for {len(fallback)} layers, `{fallback[0]}` the first: their Hessian is singular",
            'raise `damping` or `calibration_samples`, or use scheme = "rtn"',
        )


def _codes(name: str, module: torch.nn.Module, grid: Grid) -> PackedWeight:
    """The codes behind a fake-quantized weight. Raises ToolError when they do not give it back exactly."""
    weight, scales = module.weight, getattr(module, "weight_scale", None)
    assert isinstance(weight, torch.Tensor)
    if not isinstance(scales, torch.Tensor):
        raise ToolError(f"llmcompressor left `{name}` as it was")
    rows = weight.shape[0]
    scales = scales.detach().float().reshape(rows, -1)
    zeros = torch.zeros_like(scales)
    if not grid.symmetric:
        zeros = module.weight_zero_point.detach().float().reshape(rows, -1)  # type: ignore[operator]
    width = weight.shape[1] // scales.shape[1]
    codes = torch.round(weight.detach().float() / scales.repeat_interleave(width, 1))
    codes = (codes + zeros.repeat_interleave(width, 1)).clamp(grid.low, grid.high)
    packed = PackedWeight(
        codes.to(torch.int8).numpy(),
        scales.numpy(),
        None if grid.symmetric else zeros.to(torch.int8).numpy(),
        grid.bits,
    )
    if not torch.equal(torch.from_numpy(packed.dequantized()), weight.detach().float()):
        raise ToolError(
            f"the weights that llmcompressor made of `{name}` are not on the grid of their scales"
        )
    return packed
