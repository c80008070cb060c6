"""Converts a model tree into ncnn's files in float32, through TorchScript and pnnx."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from pathlib import Path

import pnnx
import torch
from device_tool import Session
from model_shape import ModelShape
from ncnn_file import BIN, PARAM

from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.expected_answer import ExpectedAnswer
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.static_model import StaticModel, static_model


def main(request: Request) -> None:
    """Inputs: model. Outputs: ncnn, a tree. Params: task, sequence_length (0 for images).

    Raises ToolError when ncnn does not answer as the model does.
    """
    seed_torch(0, request.threads)
    params = request.params
    length = int(params["sequence_length"])
    model = load_dense(request.inputs["model"], params["task"])
    expected = ExpectedAnswer(model, length)
    static = static_model(model, params["task"], length)
    report(0, 3, unit="stages")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _trace(static, folder / "model.pt")
        report(1, 3, unit="stages")
        _run_pnnx(static, folder)
        target = request.outputs["ncnn"]
        target.mkdir()
        for name in (PARAM, BIN):
            (target / name).write_bytes((folder / name).read_bytes())
        ModelShape(tuple(static.example.shape), static.classes).write(target)
    report(2, 3, unit="stages")
    expected.check(Session(target, request.threads).call(expected.row), "ncnn")
    report(3, 3, unit="stages")


def _trace(static: StaticModel, path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(static.module, (static.example,), check_trace=False).save(str(path))


def _run_pnnx(static: StaticModel, folder: Path) -> None:
    shape = ",".join(str(size) for size in static.example.shape)
    kind = "i64" if static.example.dtype == torch.int64 else "f32"
    program = Path(pnnx.__file__).with_name("pnnx")
    command = [str(program), "model.pt", f"inputshape=[{shape}]{kind}", "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / BIN).is_file():
        raise ToolError(f"pnnx ended with status {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
