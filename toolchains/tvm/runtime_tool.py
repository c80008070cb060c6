"""Builds TVM's runtime for a CPU that its wheels are not made for, out of the sources that they bring.

Only what runs a compiled model is built: the foreign function interface, the virtual machine and the CPU's
part. zig brings the C++ compiler and the libraries of every CPU. Imports the standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

_TARGETS = {
    "armv7": ("-target", "arm-linux-gnueabihf.2.31", "-mcpu=cortex_a8"),
    "riscv64": ("-target", "riscv64-linux-gnu.2.31"),
}
"""CPU -> what zig compiles for. glibc 2.31 is that of Debian 11 and Ubuntu 20.04."""
_INTERFACE = (
    *("object", "container", "custom_allocator", "dtype", "error", "function", "init_once", "tensor"),
    *("backtrace", "extra/env_c_api", "extra/env_context", "extra/json_parser", "extra/json_writer"),
    *("extra/library_module", "extra/library_module_dynamic_lib", "extra/library_module_system_lib"),
    "extra/module",
)
"""Of tvm_ffi/src/ffi."""
_RUNTIME = (
    *("device_api", "cpu_device_api", "tensor", "module", "threading_backend", "thread_pool"),
    *("workspace_pool", "const_loader_module", "logging", "file_utils", "memory/memory_manager"),
    *("vm/bytecode", "vm/executable", "vm/vm", "vm/builtin"),
)
"""Of tvm/src/runtime."""
_ABSENT_HEADERS = (
    *("tvm/support/io.h", "tvm/support/serializer.h", "tvm/support/cuda/nvtx.h"),
    *("support/bytes_io.h", "support/base64.h", "support/utils.h"),
)
"""What the sources include and the wheels lack; `streams.h` stands for all of them."""
_FLAGS = (
    *("-std=c++17", "-Os", "-g0", "-w", "-fPIC", "-fno-sanitize=all", "-ffunction-sections"),
    *("-fdata-sections", "-DTVM_FFI_EXPORTS", "-DTVM_RUNTIME_EXPORTS", "-DTVM_FFI_USE_LIBBACKTRACE=0"),
    "-DTVM_FFI_BACKTRACE_ON_SEGFAULT=0",
)
_UNITS = ("interface", "runtime", "machine")
_LINK = (
    *("-shared", "-s", "-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-soname,libtvm_runtime.so"),
    "-Wl,--version-script=exported.map",
)
_EXPORTED = ("modelbuild_*", "TVMFFI*", "TVMBackend*")
"""What applications and compiled models call; the rest can be left out where nothing uses it."""


def main(request: Request) -> None:
    """Inputs: `machine.cc`, `machine.h`, `streams.h`. Outputs: library (a file). Params: cpu."""
    target = _TARGETS[str(request.params["cpu"])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("machine.cc", "machine.h", "streams.h"):
            shutil.copyfile(request.inputs[file], folder / file)
        flags = [*target, *_FLAGS, *_lay_out(folder)]
        for index, unit in enumerate(_UNITS):
            _zig(folder, *flags, "-c", f"{unit}.cc", "-o", f"{unit}.o")
            report(index + 1, len(_UNITS) + 1, unit="stages")
        _zig(folder, *target, *_LINK, "-o", "libtvm_runtime.so", *(f"{unit}.o" for unit in _UNITS))
        report(len(_UNITS) + 1, len(_UNITS) + 1, unit="stages")
        shutil.copyfile(folder / "libtvm_runtime.so", request.outputs["library"])


def _lay_out(folder: Path) -> list[str]:
    """Write what is compiled and linked beside our own sources; the flags with which all is found."""
    ffi, tvm = _package("tvm_ffi"), _package("tvm")
    for header in _ABSENT_HEADERS:
        path = folder / header
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#include "streams.h"\n')
    # Sources name some of them from where they lie themselves: `../support`, `../../support`.
    (folder / "a" / "b").mkdir(parents=True)
    _write_unit(folder / "interface.cc", ffi / "src/ffi", _INTERFACE)
    _write_unit(folder / "runtime.cc", tvm / "src/runtime", _RUNTIME)
    exported = "".join(f" {name};" for name in _EXPORTED)
    (folder / "exported.map").write_text(f"{{ global:{exported} local: *; }};\n")
    dlpack = ffi / "3rdparty/dlpack/include"
    includes = (folder, folder / "a", folder / "a/b", ffi, ffi / "include", tvm / "include", dlpack)
    # Messages name source files: not where they lie on this machine.
    hidden = (ffi.parent, folder)
    return [*(f"-I{path}" for path in includes), *(f"-ffile-prefix-map={path}=." for path in hidden)]


def _write_unit(path: Path, folder: Path, names: Sequence[str]) -> None:
    """One source that includes many: headers are read once."""
    path.write_text("".join(f'#include "{folder / name}.cc"\n' for name in names))


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ToolError(f"the package `{name}` is not in the tool's environment")
    return Path(found.origin).parent


def _zig(folder: Path, *arguments: str) -> None:
    caches = {f"ZIG_{each}_CACHE_DIR": str(folder / f"zig-{each.lower()}") for each in ("GLOBAL", "LOCAL")}
    done = subprocess.run(
        [str(_package("ziglang") / "zig"), "c++", *arguments],
        cwd=folder,
        env={**os.environ, **caches},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ToolError(f"zig cannot build TVM's runtime: {done.stderr.strip()[-2000:]}")
