"""Exports a model to ExecuTorch, every matrix in XNNPACK's hands."""

from __future__ import annotations

import logging
import warnings

import torch
from device_tool import Program
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from int8_layers import int8_layer

from modelbuild.toolkit.exportable_model import exportable_model
from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

_MATRICES = ("mm", "addmm", "linear", "bmm", "convolution", "dequantize")
"""Parts of the names of operators that would be slow, or unpack weights, outside of XNNPACK."""


def main(request: Request) -> None:
    """Inputs: model. Outputs: binary (`.pte`). Params: bits (32 or 8), task, sequence_length (0 for images).

    Raises ToolError when a matrix is left outside of XNNPACK, where it would be slow without a word, and when
    ExecuTorch does not answer as the model does.
    """
    model = exportable_model(request, int8_layer)
    report(1, 4, unit="stages")
    logging.disable(logging.WARNING)  # Thousands of lines about the exporters' own internals.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with foreign_errors("ExecuTorch cannot take this model", Exception):
            program = torch.export.export(model.module, (model.example,))
            report(2, 4, unit="stages")
            edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        _check_delegated(edge.exported_program().graph)
        content = edge.to_executorch().buffer
    made = request.outputs["binary"]
    made.write_bytes(content)
    report(3, 4, unit="stages")
    model.check(Program(made).run(model.expected.row), "ExecuTorch")
    report(4, 4, unit="stages")


def _check_delegated(graph: torch.fx.Graph) -> None:
    for node in graph.nodes:
        name = str(node.target).partition(".default")[0]
        if node.op == "call_function" and any(part in name for part in _MATRICES):
            raise ToolError(f"XNNPACK does not take `{name}` of this model, which would be slow without it")
