"""From TVM's Relax IR to a shared library for one CPU. Imports tvm; runs lld."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from linker import link_shared
from schedule import schedule_functions
from tvm import relax

from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request

_OPTIONS = {"tirx.disable_assert": True}
"""The virtual machine checks what a caller hands to `main`. That every function inside checks its arguments
again would be a third of the code.
"""


def main(request: Request) -> None:
    """Inputs: module. Outputs: library (a file). Params: cpu (as in @platforms//cpu), target (TVM's)."""
    module = tvm.ir.load_json(request.inputs["module"].read_text())
    target = tvm.target.Target(dict(request.params["target"]))
    report(1, 3, unit="stages")
    with tvm.transform.PassContext(config=_OPTIONS):
        executable = relax.build(module, target=target, relax_pipeline=_pipeline(target))
    report(2, 3, unit="stages")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def link(library: str, objects: Sequence[str], **_: Any) -> None:
            link_shared([Path(each) for each in objects], Path(library), str(request.params["cpu"]), folder)

        link.object_format = "o"  # type: ignore[attr-defined] # how TVM asks what to write
        library = folder / "model.so"
        executable.export_library(str(library), fcompile=link, workspace_dir=name)
        request.outputs["library"].write_bytes(library.read_bytes())
    report(3, 3, unit="stages")


def _pipeline(target: tvm.target.Target) -> tvm.transform.Pass:
    """TVM's passes for a CPU, without FoldConstant: that would unpack weights and store them as floats."""
    change = relax.transform

    @tvm.transform.module_pass(opt_level=0)
    def run(module: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        before = [
            change.LegalizeOps(),
            change.AnnotateTIROpPattern(),
            change.FuseOps(),
            change.FuseTIR(),
        ]
        after = [
            change.RewriteDataflowReshape(),
            change.DeadCodeElimination(),
            change.ToNonDataflow(),
            change.RemovePurityChecking(),
            change.CallTIRRewrite(),
            change.StaticPlanBlockMemory(),
            change.LowerAllocTensor(),
            change.KillAfterLastUse(),
            change.LowerRuntimeBuiltin(),
            change.ComputePrimValue(),
            change.VMShapeLower(),
            change.AttachGlobalSymbol(),
        ]
        module = schedule_functions(tvm.transform.Sequential(before)(module), target)
        return tvm.transform.Sequential(after)(module)

    return run
