"""From a torch model to a plain ONNX graph in floating point, which any runtime's importer takes.

The graph is made for those who come after: every matrix is an initializer under the name it has in the
checkpoint, a linear layer is one MatMul with that matrix as [columns, rows], shapes are fixed, and no table
that grows with the length of the sequence is stored. Imports torch and onnx.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnxscript import optimizer

from modelbuild.toolkit.fixed_shape import MASKED, CausalText, FixedImage
from modelbuild.toolkit.onnx_export import compare, exporting, strip
from modelbuild.toolkit.request import ToolError

OPSET = 18
"""The exporter's own; others are converted from it."""
MODEL_FILE = "model.onnx"
_LIMIT_BYTES = 2**31 - (1 << 24)
_FOLDED_NUMBERS = 32
"""Constants of so many numbers are computed ahead: shapes are, cosines of positions are not."""


class CausalLogits(CausalText):
    """A language model, with a mask that is compared together."""

    def __init__(self, model: torch.nn.Module, length: int) -> None:
        """model, length: as of CausalText."""
        super().__init__(model, length)
        model.set_attn_implementation("eager")  # type: ignore[operator] # a PreTrainedModel

    def causal_mask(self) -> torch.Tensor:
        """float32 (1, 1, length, length)."""
        later = self.positions[:, None, None, :] > self.positions[:, None, :, None]
        return later.to(torch.float32) * MASKED


class _MatMulLinear(torch.nn.Module):
    """A linear layer whose matrix lies as MatMul wants it."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(layer.weight.detach().t().contiguous(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        product = torch.matmul(inputs, self.weight)
        return product if self.bias is None else product + self.bias


def export_dense(
    wrapped: CausalText | FixedImage,
    example: Mapping[str, torch.Tensor],
    directory: Path,
    *,
    limit: int = _LIMIT_BYTES,
) -> None:
    """Write `model.onnx` into the new folder `directory`; `wrapped` is changed on the way.

    limit: bytes from which the weights go into a file of their own, `model.onnx.data`, since protobuf ends at
    2 GiB. Equal models give equal bytes, in any folder and any process. Raises ToolError when torch cannot
    export the model.
    """
    tied = _lay_out(wrapped.model)
    with exporting():
        program = torch.onnx.export(
            wrapped.eval(),
            tuple(example.values()),
            dynamo=True,
            verbose=False,
            optimize=False,
            input_names=list(example),
            output_names=["logits"],
            opset_version=OPSET,
        )
        assert program is not None
        program.model = optimizer.optimize(
            program.model, input_size_limit=_FOLDED_NUMBERS, output_size_limit=_FOLDED_NUMBERS
        )
    if program.model.opset_imports[""] != OPSET:
        raise ToolError(
            f"this model can be exported with opset {program.model.opset_imports['']}, not {OPSET}"
        )
    for value in list(program.model.graph.initializers.values()):
        name = str(value.name).removeprefix("model.")
        value.name = tied.get(name, name)
    directory.mkdir()
    _write(program, directory / MODEL_FILE, limit)


def compare_dense(model: torch.nn.Module, example: Mapping[str, torch.Tensor], directory: Path) -> float:
    """Run the written file and compare it with transformers' `model`; see onnx_export.compare."""
    with torch.no_grad():
        expected = model(**example).logits.numpy()
    inputs: dict[str, npt.NDArray[np.generic]] = {name: value.numpy() for name, value in example.items()}
    return compare(directory / MODEL_FILE, {"logits": expected}, inputs)


def _lay_out(model: torch.nn.Module) -> dict[str, str]:
    """Turn the matrices of linear layers, but those that equal an embedding: one is stored for both.

    Returns the names of those -> the name of the embedding. Quantized checkpoints store both of a tied pair.
    """
    embeddings = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding)
    }
    tied: dict[str, str] = {}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            equal = [key for key, table in embeddings.items() if torch.equal(table, layer.weight)]
            if equal:
                layer.weight = model.get_parameter(equal[0])
                tied[f"{name}.weight"] = equal[0]
            else:
                model.set_submodule(name, _MatMulLinear(layer))
    return tied


def _write(program: torch.onnx.ONNXProgram, path: Path, limit: int) -> None:
    tensors = [value.const_value for value in program.model.graph.initializers.values()]
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) < limit:
        proto = program.model_proto
    else:
        program.save(path, external_data=True)
        proto = onnx.load_model(path, load_external_data=False)
    strip(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)
