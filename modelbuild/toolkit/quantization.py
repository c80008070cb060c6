"""Integer weights for any model made of `torch.nn.Linear`: grid, rounding, tree. Imports torch.

Scales are rounded to float16 *before* codes are computed, so that formats with float16 scales (GGUF's Q4_0
and Q8_0) can hold the same weights bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from modelbuild.toolkit.model_tree import copy_tokenizer, read_config, weight_files, write_json
from modelbuild.toolkit.packed_weights import PackedWeight, pack
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.task import Task

_SHRINKS = tuple(1.0 - step / 40 for step in range(13))
"""Ranges that `mse` tries, as parts of the largest weight of a group: 1.0 down to 0.7."""


@dataclass(frozen=True)
class Grid:
    """The values a weight may take: (code - zero) * scale, one scale for `group_size` neighbours in a row.

    group_size: 0 is a whole row, `per channel`. observer: where a scale comes from: `minmax`, the largest
    weight, or `mse`, the range with the least squared error.
    """

    bits: int
    group_size: int
    symmetric: bool
    observer: str = "minmax"

    @property
    def low(self) -> int:
        """The least code."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """The greatest code."""
        return (1 << (self.bits - 1)) - 1

    def check(self, name: str, columns: int) -> None:
        """Raise ToolError when rows of `columns` weights are not made of whole groups."""
        if self.group_size and columns % self.group_size:
            raise ToolError(
                f"`{name}` has rows of {columns} weights, which groups of {self.group_size} do not divide",
                "choose a `group_size` that divides every width, or 0 for one scale a row",
            )

    def scheme(self) -> dict[str, Any]:
        """The weights of a config group, as compressed-tensors writes them."""
        return {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self.symmetric,
            "strategy": "group" if self.group_size else "channel",
            "group_size": self.group_size or None,
            "dynamic": False,
            "scale_dtype": "torch.float16",
            "actorder": None,
        }


@dataclass(frozen=True)
class Checkpoint:
    """Linear layers as a format of their own stores them; embeddings and output matrices are not among them.

    tensors: module name -> its tensors by their full names. config: for `quantization_config`.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """A quantized weight, how it was made, and how far it is from the weight it stands for.

    relative_error: Frobenius norm of the difference over that of the original. max_error: largest difference.
    """

    weight: PackedWeight
    scheme: str
    relative_error: float
    max_error: float


def round_to_nearest(weight: torch.Tensor, grid: Grid) -> PackedWeight:
    """Round a matrix [rows, columns]. Raises ToolError for weights that float16 scales cannot reach."""
    rows = weight.shape[0]
    groups = weight.detach().float().reshape(rows, -1, grid.group_size or weight.shape[1])
    if not torch.isfinite(groups).all():
        raise ToolError("the model holds weights that are not finite numbers")
    scales, zeros, codes = _rounded(groups, grid, 1.0)
    if grid.observer == "mse":
        best = _squared_error(groups, scales, zeros, codes)
        for shrink in _SHRINKS[1:]:
            candidate = _rounded(groups, grid, shrink)
            error = _squared_error(groups, *candidate)
            better = error < best
            best = torch.where(better, error, best)
            scales, zeros, codes = (
                torch.where(better, new, old)
                for new, old in zip(candidate, (scales, zeros, codes), strict=True)
            )
    return PackedWeight(
        codes.reshape(weight.shape).to(torch.int8).numpy(),
        scales.reshape(rows, -1).numpy(),
        None if grid.symmetric else zeros.reshape(rows, -1).to(torch.int8).numpy(),
        grid.bits,
    )


def _rounded(groups: torch.Tensor, grid: Grid, shrink: float) -> tuple[torch.Tensor, ...]:
    if grid.symmetric:
        scales = groups.abs().amax(-1, keepdim=True) * shrink / ((grid.high - grid.low) / 2)
    else:
        least = groups.amin(-1, keepdim=True).clamp(max=0) * shrink
        scales = (groups.amax(-1, keepdim=True).clamp(min=0) * shrink - least) / (grid.high - grid.low)
    scales = scales.half().float()
    if torch.isinf(scales).any():
        raise ToolError("the model holds weights too large for float16 scales")
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    zeros = torch.zeros_like(scales)
    if not grid.symmetric:
        zeros = (grid.low - torch.round(least / scales)).clamp(grid.low, grid.high)
    codes = (torch.round(groups / scales) + zeros).clamp(grid.low, grid.high)
    return scales, zeros, codes


def _squared_error(
    groups: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, codes: torch.Tensor
) -> torch.Tensor:
    return ((codes - zeros) * scales - groups).square().sum(-1, keepdim=True)


def compare(weight: torch.Tensor, quantized: PackedWeight, scheme: str) -> Layer:
    """Measure what quantization did to `weight`."""
    original = weight.detach().double()
    difference = torch.from_numpy(quantized.dequantized()).double() - original
    norm = float(original.norm()) or 1.0
    return Layer(quantized, scheme, float(difference.norm()) / norm, float(difference.abs().max()))


def round_embeddings(model: torch.nn.Module, grid: Grid) -> dict[str, Layer]:
    """Round embeddings and the output matrix, in place too, so that what follows sees the rounded ones."""
    layers: dict[str, Layer] = {}
    for name in embedding_names(model):
        module = model.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        grid.check(f"{name}.weight", weight.shape[1])
        # A tied output matrix is the embedding, which is on the grid by now: round the original both times.
        original = weight.detach().clone()
        tied = next((n for n in layers if model.get_submodule(n).weight is weight), None)
        layers[name] = layers[tied] if tied else compare(original, round_to_nearest(original, grid), "rtn")
    with torch.no_grad():
        for name, layer in layers.items():
            model.get_submodule(name).weight.copy_(torch.from_numpy(layer.weight.dequantized()))  # type: ignore[operator]
    return layers


def embedding_names(model: torch.nn.Module) -> list[str]:
    """The embeddings and, for a language model, the output matrix."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) or module is output
    ]


def linear_names(model: torch.nn.Module) -> list[str]:
    """Every linear layer, the output matrix of a language model left out."""
    left_out = set(embedding_names(model))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in left_out
    ]


def write_quantized(
    source: Path,
    target: Path,
    layers: Mapping[str, Layer],
    grid: Grid,
    scheme: str,
    model: torch.nn.Module,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Write the tree: packed weights, the other tensors as they are, config.json, quantization.json.

    layers: module name -> its quantized weight; the modules are those of `model`. checkpoint: for linear
    layers, in place of compressed-tensors' format. transformers cannot read a packed embedding, so a rounded
    one is stored as float32 numbers on its grid; its codes are those of the output matrix it is tied to, else
    they lie in `embeddings.safetensors`.
    """
    target.mkdir(parents=True)
    kept = _other_tensors(source, layers)
    config = read_config(source)
    packed = _linear_layers(model, layers) if checkpoint is None else set(checkpoint.tensors)
    tensors, aside = dict(kept), dict[str, torch.Tensor]()
    stored = {id(layer) for name, layer in layers.items() if name in packed}
    for name, layer in layers.items():
        if name in packed:
            tensors |= _packed_tensors(name, layer.weight) if checkpoint is None else checkpoint.tensors[name]
            continue
        if checkpoint is not None and config.get("tie_word_embeddings") and _is_output(model, name):
            continue  # The embedding, which stands for both.
        tensors[f"{name}.weight"] = torch.from_numpy(layer.weight.dequantized())
        if id(layer) not in stored:
            aside |= _packed_tensors(name, layer.weight)
    _save(tensors, target / "model.safetensors")
    if aside:
        _save(aside, target / "embeddings.safetensors")
    if checkpoint is not None:
        config["quantization_config"] = dict(checkpoint.config)
    else:
        if config.get("tie_word_embeddings") and len(stored) < len(layers):
            config["tie_word_embeddings"] = False  # Equal values, stored in two ways.
        config["quantization_config"] = _compressed_tensors(model, layers, grid)
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    copy_tokenizer(source, target)
    _write_report(target / "quantization.json", layers, kept, grid, scheme)


def _other_tensors(source: Path, layers: Mapping[str, Layer]) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    for path in weight_files(source):
        with safe_open(path, framework="pt") as stored:
            for name in sorted(stored.keys()):
                if name.removesuffix(".weight") not in layers:
                    kept[name] = stored.get_tensor(name)
    return kept


def _compressed_tensors(model: torch.nn.Module, layers: Mapping[str, Layer], grid: Grid) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": sorted(name for name in embedding_names(model) if name not in layers),
        "config_groups": {
            "group_0": {"targets": ["Linear"], "format": "pack-quantized", "weights": grid.scheme()}
        },
    }


def _write_report(
    path: Path, layers: Mapping[str, Layer], kept: Mapping[str, torch.Tensor], grid: Grid, scheme: str
) -> None:
    rows = [
        {
            "name": name,
            "scheme": layer.scheme,
            "relative_error": layer.relative_error,
            "max_error": layer.max_error,
        }
        for name, layer in layers.items()
    ]
    floats = [
        {"name": name, "dtype": str(t.dtype).removeprefix("torch.")} for name, t in sorted(kept.items())
    ]
    write_json(path, {"schema": 1, "scheme": scheme, **asdict(grid), "layers": rows, "not_quantized": floats})


def _linear_layers(model: torch.nn.Module, names: Iterable[str]) -> set[str]:
    return {name for name in names if isinstance(model.get_submodule(name), torch.nn.Linear)}


def _is_output(model: torch.nn.Module, name: str) -> bool:
    return not isinstance(model.get_submodule(name), torch.nn.Embedding)


def _packed_tensors(name: str, weight: PackedWeight) -> dict[str, torch.Tensor]:
    tensors = {
        f"{name}.weight_packed": torch.from_numpy(pack(weight.codes, weight.bits)),
        f"{name}.weight_scale": torch.from_numpy(weight.scales),
        f"{name}.weight_shape": torch.tensor(weight.codes.shape),
    }
    if weight.zeros is not None:
        zeros = pack(np.ascontiguousarray(weight.zeros.T), weight.bits).T
        tensors[f"{name}.weight_zero_point"] = torch.from_numpy(np.ascontiguousarray(zeros))
    return tensors


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensors[name] for name in sorted(tensors)}, path, metadata={"format": "pt"})
    path.chmod(0o644)


def read_grid(params: Mapping[str, Any]) -> Grid:
    """The grid that an action's parameters name."""
    return Grid(
        bits=int(params["bits"]),
        group_size=int(params["group_size"]),
        symmetric=bool(params["symmetric"]),
        observer=str(params["observer"]),
    )


def run_rounding(request: Request, task: Task) -> None:
    """The `quantize` action with scheme `rtn`: input `model`, output `model`."""
    params = request.params
    grid = read_grid(params)
    seed_torch(0, request.threads)
    source = request.inputs["model"]
    weight_files(source)
    model = task.load(source)
    layers = round_embeddings(model, grid) if params["embeddings"] == "rtn" else {}
    for name in linear_names(model):
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        grid.check(f"{name}.weight", weight.shape[1])
        layers[name] = compare(weight, round_to_nearest(weight, grid), "rtn")
    if not layers:
        raise ToolError("the model has no linear layer to quantize")
    write_quantized(source, request.outputs["model"], layers, grid, "rtn", model)
