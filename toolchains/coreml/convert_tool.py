"""Converts a model tree into an `.mlpackage`, and compares the program that is in it with torch."""

from __future__ import annotations

import json
import tempfile
import uuid
import warnings
from pathlib import Path
from typing import Any

import coremltools
import numpy as np
import torch
from coremltools.proto import Model_pb2
from mil_evaluate import evaluate
from mil_program import SPECIFICATION, WEIGHTS, read_program

from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.expected_answer import ExpectedAnswer
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.static_model import StaticModel, static_model

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
"""How far a logit of the program may be from torch's, as a part of the largest logit."""
_DATE = "com.github.apple.coremltools.conversion_date"
_NAMES = uuid.UUID("5f3c5d0a-7f0e-4c55-8f39-3a1f0f7f2f3e")
"""Items of a package have random names; ours are made from their paths."""


def main(request: Request) -> None:
    """Inputs: model. Outputs: package. Params: task, precision, target, sequence_length (0 for images)."""
    seed_torch(0, request.threads)
    params = request.params
    task, precision = params["task"], params["precision"]
    model = load_dense(request.inputs["model"], task)
    length = int(params["sequence_length"])
    expected = ExpectedAnswer(model, length)
    static = static_model(model, task, length, grouped_attention=False)
    report(0, 2, unit="stages")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "model.mlpackage"
        _convert(static, precision, params["target"]).save(str(made))
        _write(made, request.outputs["package"])
    report(1, 2, unit="stages")
    _compare(request.outputs["package"], static.input_name, expected, precision)
    report(2, 2, unit="stages")


def _convert(static: StaticModel, precision: str, target: str) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(static.module, (static.example,), check_trace=False)
    is_text = static.example.dtype == torch.int64
    precisions = coremltools.precision
    return coremltools.convert(
        traced,
        inputs=[
            coremltools.TensorType(
                name=static.input_name,
                shape=tuple(static.example.shape),
                dtype=np.int32 if is_text else np.float32,
            )
        ],
        outputs=[coremltools.TensorType(name="logits", dtype=np.float32)],
        convert_to="mlprogram",
        compute_precision=precisions.FLOAT16 if precision == "fp16" else precisions.FLOAT32,
        minimum_deployment_target=getattr(coremltools.target, target),
        skip_model_load=True,
    )


def _write(made: Path, target: Path) -> None:
    """The package without what differs from run to run: the date, the order of maps, names of items."""
    specification = Model_pb2.Model()
    specification.ParseFromString((made / SPECIFICATION).read_bytes())
    specification.description.metadata.userDefined.pop(_DATE, None)
    (target / WEIGHTS).parent.mkdir(parents=True)
    (target / SPECIFICATION).write_bytes(specification.SerializeToString(deterministic=True))
    (target / WEIGHTS).write_bytes((made / WEIGHTS).read_bytes())
    manifest = json.loads((made / "Manifest.json").read_text())
    items = manifest["itemInfoEntries"]
    names = {old: str(uuid.uuid5(_NAMES, item["path"])) for old, item in items.items()}
    manifest["itemInfoEntries"] = {names[old]: item for old, item in items.items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    (target / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")


def _compare(package: Path, input_name: str, expected: ExpectedAnswer, precision: str) -> None:
    program = read_program(package)
    shapes = ({input_name: expected.row.shape}, {"logits": expected.logits.shape})
    if (dict(program.inputs), dict(program.outputs)) != shapes:
        raise ToolError(f"the program takes {program.inputs} and gives {program.outputs}, not {shapes}")
    found = evaluate(program, {input_name: expected.row})["logits"]
    hint = "choose coreml:fp32" if precision == "fp16" else "this is a bug"
    expected.check(found, "the program for Core ML", TOLERANCE[precision], hint)
