"""From a model tree to TVM's Relax IR, weights included: what every device shares."""

from __future__ import annotations

from pathlib import Path

import kernels
import layers
import numpy as np
import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from modelbuild.toolkit.attention_window import check_window
from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch

_BITS = {"tvm:fp32": 0, "tvm:int8": 8, "tvm:int4": 4}
TOLERANCE = 1e-4
"""The largest difference to the model as transformers runs it, as a part of the largest logit, that the order
of sums explains."""


class _Text(torch.nn.Module):
    """input_ids int64 (1, length) -> logits (1, length, vocabulary). The mask is made of the positions here:
    TVM's importer does not take the one that transformers makes.
    """

    def __init__(self, model: torch.nn.Module, length: int) -> None:
        super().__init__()
        check_window(model.config.to_dict(), length)  # type: ignore[union-attr,operator]
        self.model = model
        self.length = length

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(self.length)
        later = positions[None, :] > positions[:, None]
        mask = later.to(torch.float32) * torch.finfo(torch.float32).min
        logits: torch.Tensor = self.model(
            input_ids=rows, attention_mask=mask[None, None], position_ids=positions[None], use_cache=False
        ).logits
        return logits


class _Image(torch.nn.Module):
    """pixel_values float32 (1, channels, height, width) -> logits (1, labels)."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=rows).logits
        return logits


def main(request: Request) -> None:
    """Inputs: model. Outputs: module (a file). Params: format, task, sequence_length (0 for images).

    The module has two functions. `main` takes a row and gives its logits. `signature` gives, as int64, the
    shape of the row and behind it the number of classes. Raises ToolError for weights that are not as wide as
    `format` says, and when the layers that replace the model's compute something else.
    """
    seed_torch(0, request.threads)
    tree, params = request.inputs["model"], request.params
    task, length = str(params["task"]), int(params["sequence_length"])
    packed = _packed_weights(tree, str(params["format"]))
    model = load_dense(tree, task)
    model.set_attn_implementation("eager")  # type: ignore[operator] # a PreTrainedModel
    row = _example(tree, task, length)
    wrapped = (_Text(model, length) if length else _Image(model)).eval()
    report(1, 4, unit="stages")
    with torch.no_grad():
        expected = (model(input_ids=row) if length else model(pixel_values=row)).logits
        layers.replace_layers(model, packed)
        _compare(wrapped(row), expected)
        report(2, 4, unit="stages")
        program = torch.export.export(wrapped, (row,))
        module = from_exported_program(
            program,
            keep_params_as_input=False,
            unwrap_unit_return_tuple=True,
            custom_convert_map=dict(kernels.conversions()),
        )
    report(3, 4, unit="stages")
    _add_signature(module, [*row.shape, expected.shape[-1]])
    request.outputs["module"].write_text(tvm.ir.save_json(module))
    report(4, 4, unit="stages")


def _packed_weights(tree: Path, format_: str) -> dict[str, PackedWeight]:
    """The weights to keep packed; none for `tvm:fp32`, which stores what they stand for."""
    wanted, found = _BITS[format_], packed_bits(read_config(tree))
    if not wanted:
        return {}
    if found != wanted:
        stored = f"{found}-bit weights" if found else "weights in floating point"
        raise ToolError(f"`{format_}` takes {wanted}-bit weights, and the model has {stored}")
    return split_packed(read_tensors(tree), found)[0]


def _example(tree: Path, task: str, length: int) -> torch.Tensor:
    config = read_config(tree)
    if task != "image_classification":
        return torch.randint(0, config["vocab_size"], (1, length))
    size = config["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(1, config["num_channels"], height, width)


def _compare(found: torch.Tensor, expected: torch.Tensor) -> None:
    scale = max(1.0, float(expected.abs().max()))
    difference = float((found - expected).abs().max()) / scale
    if not difference <= TOLERANCE:
        raise ToolError(f"the layers for TVM differ from the model by {difference:.2g} of its largest logit")


def _add_signature(module: tvm.IRModule, numbers: list[int]) -> None:
    builder = relax.BlockBuilder()
    with builder.function("signature", []):
        builder.emit_func_output(relax.const(np.array(numbers, dtype=np.int64), "int64"))
    module["signature"] = builder.get()["signature"]
