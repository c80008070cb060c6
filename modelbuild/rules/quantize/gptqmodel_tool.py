"""Quantizes a language model with GPTQ (Frantar et al. 2022) as GPTQModel, AutoGPTQ's heir, implements it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.model_tree import read_config, weight_files, write_json
from modelbuild.toolkit.packed_weights import packed_bits, read_tensors, split_packed
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.quantization import (
    Checkpoint,
    Grid,
    Layer,
    compare,
    linear_names,
    read_grid,
    round_embeddings,
    write_quantized,
)
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch

_PARTS = ("qweight", "qzeros", "scales", "g_idx")
_LEAST_WORKERS = 2
"""GPTQModel's own pools ask for so many, and it does not start with fewer. They change no byte."""
_MACHINE = ("offload_to_disk", "offload_to_disk_path", "telemetry")
"""What GPTQModel notes about the machine that quantized; it says nothing about the model."""


def main(request: Request) -> None:
    """Inputs: model, calibration. Outputs: model. Params: those of the rule."""
    params = request.params
    grid = read_grid(params)
    seed_torch(int(params["seed"]), request.threads)
    source = request.inputs["model"]
    weight_files(source)
    task = LanguageModel()
    model = task.load(source)
    names = linear_names(model)
    for name in names:
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        grid.check(f"{name}.weight", weight.shape[1])
    samples = _samples(task, request.inputs["calibration"], source, int(params["calibration_samples"]))
    layers: dict[str, Layer] = {}
    with tempfile.TemporaryDirectory() as scratch:
        start, made = Path(scratch, "start"), Path(scratch, "made")
        if params["embeddings"] == "rtn":
            rounded = task.load(source)
            layers |= round_embeddings(rounded, grid)
            task.save(rounded, start, source)
        report(0, len(names), unit="layers")
        parent = start if layers else source.resolve()
        with contextlib.chdir(scratch):  # GPTQModel writes a log where it is called.
            _run_gptqmodel(parent, made, grid, samples, float(params["damping"]), request.threads)
        layers |= _layers(made, model, names)
        checkpoint = Checkpoint(_tensors(made, names), _config(made))
    report(len(names), len(names), unit="layers")
    write_quantized(source, request.outputs["model"], layers, grid, "gptq", model, checkpoint)
    write_json(request.outputs["model"] / "quantize_config.json", checkpoint.config)


def _samples(task: LanguageModel, calibration: Path, model: Path, count: int) -> list[dict[str, list[int]]]:
    examples = task.examples(calibration, "calibration", model, limit=count)
    if len(examples.ids) < count:
        raise ToolError(
            f"the split `calibration` has {len(examples.ids)} examples, fewer than {count}",
            "set `calibration_samples` lower, or generate more",
        )
    return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in examples.ids]


def _run_gptqmodel(
    source: Path, target: Path, grid: Grid, samples: list[dict[str, list[int]]], damping: float, threads: int
) -> None:
    """Quantize the tree `source` into the tree `target`, in AutoGPTQ's format."""
    os.environ |= {
        "GPTQMODEL_CPU_WORKERS": str(max(threads, _LEAST_WORKERS)),
        # Without it the first packing compiles C++, with whatever compiler the machine has. Python packs the
        # same words.
        "GPTQMODEL_DISABLE_PACK_EXT": "1",
        "TERM": "dumb",  # Bars are no log; `report` speaks instead.
    }
    from gptqmodel import GPTQModel, QuantizeConfig  # type: ignore[import-not-found] # noqa: PLC0415 - reads the environment
    from gptqmodel.quantization.gptq import GPTQ  # type: ignore[import-not-found] # noqa: PLC0415
    from gptqmodel.quantization.quantizer import Quantizer  # type: ignore[import-not-found] # noqa: PLC0415
    from logbar import LogBar  # type: ignore[import-not-found] # noqa: PLC0415

    LogBar.shared().setLevel("WARNING")
    recovered: list[str] = []
    GPTQ.hessian_inverse = _watched(GPTQ.hessian_inverse, recovered)
    Quantizer.find_params = _with_stored_scales(Quantizer.find_params)
    config = QuantizeConfig(
        bits=grid.bits,
        group_size=grid.group_size or -1,
        sym=grid.symmetric,
        mse=2.0 if grid.observer == "mse" else 0.0,
        damp_percent=damping,
        damp_auto_increment=0.0,
        desc_act=False,
        act_group_aware=False,
        fallback=None,
        offload_to_disk=False,  # Its temporary path would be written into the model.
    )
    model = GPTQModel.load(str(source), config, device="cpu", dtype=torch.float32)
    # The default drops examples of up to ten tokens.
    model.quantize(samples, batch_size=1, calibration_data_min_length=0)
    if recovered:
        raise ToolError(
            f"GPTQ failed for {len(recovered)} layers, `{min(recovered)}` the first: "
            "their Hessian is singular",
            'raise `damping` or `calibration_samples`, or use scheme = "rtn"',
        )
    model.save(str(target))


def _watched(
    inverse: Callable[[Any, torch.Tensor], tuple[Any, float]], recovered: list[str]
) -> Callable[[Any, torch.Tensor], tuple[Any, float]]:
    """GPTQModel mends a Hessian that cannot be inverted, or rounds to nearest, and only logs it: note it."""

    def hessian_inverse(gptq: Any, hessian: torch.Tensor) -> tuple[Any, float]:
        before = hessian.diagonal().clone()
        factor, damping = inverse(gptq, hessian)
        if factor is None or not torch.equal(before, hessian.diagonal()):
            recovered.append(str(gptq.name))
        return factor, damping

    return hessian_inverse


def _with_stored_scales(find: Callable[..., None]) -> Callable[..., None]:
    """GPTQModel rounds scales to float16 when it stores them; codes should know of that."""

    def find_params(quantizer: Any, *values: Any, **options: Any) -> None:
        find(quantizer, *values, **options)
        scale = quantizer.scale.half().float()
        quantizer.scale = torch.where(scale == 0, torch.ones_like(scale), scale)

    return find_params


def _layers(made: Path, model: torch.nn.Module, names: list[str]) -> dict[str, Layer]:
    packed, _ = split_packed(read_tensors(made), packed_bits(read_config(made)))
    layers = {}
    for name in names:
        if f"{name}.weight" not in packed:
            raise ToolError(f"GPTQModel left `{name}` as it was")
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        layers[name] = compare(weight, packed[f"{name}.weight"], "gptq")
    return layers


def _tensors(made: Path, names: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    tensors: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    for path in weight_files(made):
        with safe_open(path, framework="pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - not a mapping
                name, _, part = key.rpartition(".")
                if part in _PARTS:
                    tensors[name][key] = stored.get_tensor(key)
    return tensors


def _config(made: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_config(made)["quantization_config"]
    meta: Mapping[str, Any] = config["meta"]
    return {**config, "meta": {key: value for key, value in meta.items() if key not in _MACHINE}}
