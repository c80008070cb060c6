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
)


def main(request: Request) -> None:
    """Inputs: mlir. Outputs: binary (`.vmfb`). Params: target, flags of iree-compile that name the CPU."""
    target = [str(flag) for flag in request.params["target"]]
    threading = ["--mlir-disable-threading"] if request.threads == 1 else []
    try:
        compile_file(
            str(request.inputs["mlir"]),
            target_backends=["llvm-cpu"],
            input_type="onnx",
            output_file=str(request.outputs["binary"]),
            extra_args=[*_FLAGS, *target, *threading],
        )
    except CompilerToolError as error:
        reason = next((line for line in str(error).splitlines() if "error:" in line), str(error))
        raise ToolError(
            f"IREE cannot compile this model with {' '.join(target)}: {reason.strip()}"
        ) from error
