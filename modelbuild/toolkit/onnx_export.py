"""From a torch model to an ONNX file that was compared with it. Imports torch, onnx and onnxruntime.

Packed integer weights stay integers: each becomes an initializer with the very codes of the checkpoint and a
DequantizeLinear, so that the file is as small as the checkpoint and no weight is rounded twice.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.onnx_runtime import OnnxModel
from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import ToolError

BLOCKED_OPSET = 21
"""The first opset whose DequantizeLinear has a scale for each block of a row."""
TOLERANCE = 1e-4
"""The largest difference to torch, as a part of the largest logit, that rounding explains."""
_LIMIT_BYTES = 2**31 - 1


class PackedLinear(torch.nn.Module):
    """A linear layer that is exported with its codes. It computes nothing useful outside an export."""

    def __init__(self, weight: PackedWeight, bias: torch.nn.Parameter | None) -> None:
        super().__init__()
        groups = weight.scales.shape[1]
        squeeze = groups == 1
        self.register_buffer("codes", torch.from_numpy(weight.codes.copy()))
        self.register_buffer("scale", torch.from_numpy(weight.scales[:, 0] if squeeze else weight.scales))
        self.zero: torch.Tensor | None
        zeros = None if weight.zeros is None else weight.zeros[:, 0] if squeeze else weight.zeros
        self.register_buffer("zero", None if zeros is None else torch.from_numpy(zeros.copy()))
        self.bias = bias
        self._attributes: dict[str, Any] = (
            {"axis": 0} if squeeze else {"axis": 1, "block_size": weight.group_size}
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs: (..., columns)."""
        stored = (self.codes, self.scale) if self.zero is None else (self.codes, self.scale, self.zero)
        weight = torch.onnx.ops.symbolic(
            "DequantizeLinear",
            stored,  # type: ignore[arg-type] # buffers are tensors
            self._attributes,
            dtype=torch.float32,
            shape=self.codes.shape,  # type: ignore[arg-type]
        )
        return torch.nn.functional.linear(inputs, weight, self.bias)


@contextmanager
def exporting() -> Iterator[None]:
    """Around torch's exporter: no word about its own internals, and what it raises becomes ToolError."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), foreign_errors("torch cannot export this model to ONNX", Exception):
        warnings.simplefilter("ignore")
        yield


def export(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    packed: Mapping[str, PackedWeight],
    *,
    outputs: Sequence[str],
    opset: int,
    dynamic: Mapping[str, Mapping[int, str]],
    metadata: Mapping[str, str],
) -> bytes:
    """The ONNX file of `model`, whose layers named in `packed` are replaced (in place).

    model: called with `inputs` in their order; returns the outputs. packed: name of a linear layer -> its
    weight. dynamic: input -> axis -> name of the size. Equal models give equal bytes, in any folder. Raises
    ToolError when a weight has no place or the exporter fails.
    """
    _replace_linears(model, packed)
    dimensions = {
        name: {axis: torch.export.Dim(size) for axis, size in dynamic.get(name, {}).items()}
        for name in inputs
    }
    with exporting():
        program = torch.onnx.export(
            model.eval(),
            tuple(inputs.values()),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dimensions.values()),
            opset_version=opset,
        )
    assert program is not None
    proto = program.model_proto
    if proto.opset_import[0].version != opset:
        raise ToolError(f"this model can be exported with opset {proto.opset_import[0].version}, not {opset}")
    strip(proto)
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)
    if proto.ByteSize() > _LIMIT_BYTES:
        raise ToolError("the ONNX file would be larger than 2 GiB, which one file cannot be")
    onnx.checker.check_model(proto, full_check=True)
    _check_codes(proto, packed)
    return bytes(proto.SerializeToString(deterministic=True))


def strip(message: Any) -> None:
    """Remove what the exporter notes about itself, everywhere: stack traces hold paths of this machine."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                strip(part)


def compare(
    file: bytes | Path,
    reference: Mapping[str, npt.NDArray[np.float32]],
    inputs: Mapping[str, npt.NDArray[Any]],
) -> float:
    """The largest difference between ONNX Runtime's outputs and `reference`, relative to its largest value.

    Raises ToolError when it is more than rounding explains, or is no number.
    """
    answers = OnnxModel(file).run(inputs)
    worst = 0.0
    for name, expected in reference.items():
        answer = answers[name]
        if answer.shape != expected.shape:
            raise ToolError(f"ONNX Runtime gives `{name}` of shape {answer.shape}, torch {expected.shape}")
        difference = float(np.abs(answer - expected).max() / max(1.0, float(np.abs(expected).max())))
        if not difference <= TOLERANCE:
            raise ToolError(
                f"ONNX Runtime and torch differ by {difference:.2g} of the largest `{name}`, "
                f"more than {TOLERANCE:g}",
                hint="the export is wrong; try another `opset`",
            )
        worst = max(worst, difference)
    return worst


def _replace_linears(model: torch.nn.Module, packed: Mapping[str, PackedWeight]) -> None:
    modules = dict(model.named_modules())
    for name, weight in packed.items():
        layer = modules.get(name)
        if not isinstance(layer, torch.nn.Linear):
            raise ToolError(f"the packed weight of `{name}` belongs to no linear layer")
        model.set_submodule(name, PackedLinear(weight, layer.bias))


def _check_codes(proto: Any, packed: Mapping[str, PackedWeight]) -> None:
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name, weight in packed.items():
        tensor = stored.get(f"{name}.codes")
        if tensor is None or not np.array_equal(numpy_helper.to_array(tensor), weight.codes):
            raise ToolError(f"the exporter changed the codes of `{name}`")
