"""Converts a model to LiteRT, its matrices as floats or as 8-bit integers."""

from __future__ import annotations

import logging
import warnings

import litert_torch
from device_tool import LiteProgram
from flatbuffer import LiteModel
from int8_layers import on_grid

from modelbuild.toolkit.exportable_model import exportable_model
from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: model. Outputs: binary (`.tflite`). Params: bits (32, 8), task, sequence_length (0 for images).

    Tokens are 32-bit integers, as LiteRT's models have them. Raises ToolError when LiteRT does not answer as
    the model does.
    """
    model = exportable_model(request, on_grid)
    report(1, 4, unit="stages")
    made = request.outputs["binary"]
    logging.disable(logging.WARNING)  # That tokens become 32-bit integers.
    with warnings.catch_warnings(), foreign_errors("LiteRT cannot take this model", Exception):
        warnings.simplefilter("ignore")
        litert_torch.convert(model.module, (model.example,)).export(str(made))
    report(2, 4, unit="stages")
    lite = LiteModel(made.read_bytes())
    lite.leave_out_names()
    lite.store_integers([(each.codes.numpy(), each.scales.numpy()) for each in model.matrices.values()])
    lite.store_equal_constants_once()
    made.write_bytes(lite.packed())
    report(3, 4, unit="stages")
    model.check(LiteProgram(made, request.threads).run(model.expected.row), "LiteRT")
    report(4, 4, unit="stages")
