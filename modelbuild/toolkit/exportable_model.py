"""A model made ready for exporters that keep 8-bit integers, ExecuTorch's and LiteRT's. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch

from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.expected_answer import ROUNDED_INPUTS, TOLERANCE, ExpectedAnswer
from modelbuild.toolkit.fixed_shape import FixedImage, FixedText, example_row
from modelbuild.toolkit.int8_matrices import Int8Matrix, int8_matrices, round_layers
from modelbuild.toolkit.request import Request
from modelbuild.toolkit.seeding import seed_torch

Replacement = Callable[[torch.nn.Module, Int8Matrix], torch.nn.Module]


@dataclass(frozen=True)
class ExportableModel:
    """module: takes `example`, a row of zeros, and gives logits. expected: what they should be.

    matrices: those that stay integers, by the name of their layer; empty: all are floats.
    """

    module: torch.nn.Module
    example: torch.Tensor
    expected: ExpectedAnswer
    matrices: Mapping[str, Int8Matrix]

    def check(self, found: npt.NDArray[Any], runtime: str) -> None:
        """Raise ToolError when what `runtime` answers to `expected.row` is too far from what is expected."""
        self.expected.check(found, runtime, ROUNDED_INPUTS if self.matrices else TOLERANCE)


def exportable_model(request: Request, replacement: Replacement) -> ExportableModel:
    """The input `model`, on one row. Params: bits (32 or 8), task, sequence_length (0 for images).

    replacement: what is put in place of a linear layer or embedding whose matrix is integers. The layer has
    the numbers that they stand for, and so it has when the model is asked what is expected.
    Raises ToolError for weights that would be rounded twice, and for a window shorter than the row.
    """
    seed_torch(0, request.threads)
    tree, params = request.inputs["model"], request.params
    length = int(params["sequence_length"])
    model = load_dense(tree, str(params["task"]))
    matrices = int8_matrices(model, tree) if params["bits"] == 8 else {}
    round_layers(model, matrices)
    expected = ExpectedAnswer(model, length)
    for name, matrix in matrices.items():
        model.set_submodule(name, replacement(model.get_submodule(name), matrix))
    model.set_attn_implementation("eager")  # type: ignore[operator] # a PreTrainedModel
    wrapped = (FixedText(model, length) if length else FixedImage(model)).eval()
    return ExportableModel(wrapped, example_row(model, length), expected, matrices)
