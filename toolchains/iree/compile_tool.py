"""Compiles MLIR to a VM module with native code for one CPU, all weights inside."""

from __future__ import annotations

from iree.compiler.tools import CompilerToolError, compile_file

from modelbuild.toolkit.request import Request, ToolError

_FLAGS = (
    # Without O2 a tied embedding is stored a second time, transposed.
    "--iree-opt-level=O2",
    # Names of source files would differ from directory to directory.
    "--iree-llvmcpu-debug-symbols=false",
    "--iree-vm-bytecode-module-strip-source-map",
    "--iree-vm-bytecode-module-strip-debug-ops",
    # Else short vectors become part of the code, and each layer gets code of its own.
    "--iree-flow-inline-constants-max-byte-length=0",
)
_PADDED = "builtin.module(util.func(iree-preprocessing-pad-linalg-ops{pad-size=8}))"
"""A pass that makes the sizes of matrix products multiples of 8, so that loops over vectors have no rest."""


def main(request: Request) -> None:
    """Inputs: mlir. Outputs: binary (`.vmfb`).

    Params: target, flags of iree-compile that name the CPU; pad_matrices, whether the sizes of matrix
    products become multiples of 8 (a tied matrix that grows is stored twice).
    """
    target = [str(flag) for flag in request.params["target"]]
    padding = [f"--iree-preprocessing-pass-pipeline={_PADDED}"] if request.params["pad_matrices"] else []
    threading = ["--mlir-disable-threading"] if request.threads == 1 else []
    try:
        compile_file(
            str(request.inputs["mlir"]),
            target_backends=["llvm-cpu"],
            input_type="onnx",
            output_file=str(request.outputs["binary"]),
            extra_args=[*_FLAGS, *padding, *target, *threading],
        )
    except CompilerToolError as error:
        reason = next((line for line in str(error).splitlines() if "error:" in line), str(error))
        raise ToolError(
            f"IREE cannot compile this model with {' '.join(target)}: {reason.strip()}"
        ) from error
