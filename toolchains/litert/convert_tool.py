"""Converts a model to LiteRT, its matrices as floats or as 8-bit integers."""

from __future__ import annotations

import logging
import warnings

import litert_torch
from device_tool import LiteProgram
from flatbuffer import LiteModel
from int8_layers import replace_layers

from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.expected_answer import ROUNDED_INPUTS, TOLERANCE, ExpectedAnswer
from modelbuild.toolkit.fixed_shape import FixedImage, FixedText, example_row
from modelbuild.toolkit.int8_matrices import int8_matrices, round_layers
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch


def main(request: Request) -> None:
    """Inputs: model. Outputs: binary (`.tflite`). Params: bits (32, 8), task, sequence_length (0 for images).

    Tokens are 32-bit integers, as LiteRT's models have them. Raises ToolError when LiteRT does not answer as
    the model does.
    """
    seed_torch(0, request.threads)
    tree, params = request.inputs["model"], request.params
    length = int(params["sequence_length"])
    model = load_dense(tree, str(params["task"]))
    matrices = int8_matrices(model, tree) if params["bits"] == 8 else {}
    round_layers(model, matrices)
    expected = ExpectedAnswer(model, length)
    replace_layers(model, matrices)
    wrapped = (FixedText(model, length) if length else FixedImage(model)).eval()
    report(1, 4, unit="stages")
    made = request.outputs["binary"]
    logging.disable(logging.WARNING)  # That tokens become 32-bit integers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            litert_torch.convert(wrapped, (example_row(tree, length),)).export(str(made))
        except Exception as error:  # the converter's exceptions share no base of their own
            first_line = str(error).strip().partition("\n")[0]
            raise ToolError(f"LiteRT cannot take this model: {first_line}") from error
    report(2, 4, unit="stages")
    lite = LiteModel(made.read_bytes())
    lite.leave_out_names()
    lite.store_integers([(each.codes.numpy(), each.scales.numpy()) for each in matrices.values()])
    lite.store_equal_constants_once()
    made.write_bytes(lite.packed())
    report(3, 4, unit="stages")
    found = LiteProgram(made, request.threads).run(expected.row)
    expected.check(found, "LiteRT", ROUNDED_INPUTS if matrices else TOLERANCE)
    report(4, 4, unit="stages")
