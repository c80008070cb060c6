"""Links object files of any CPU to a shared library, with nothing of this machine's. Runs zig's copy of lld.

A library made here needs a handful of functions of the C library. Naming them is enough for a linker: the
device has the functions. So no compiler, no headers and no C library of the device are needed here, and a
link takes a moment, where a C compiler that brings its own library builds that first.
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path

from modelbuild.toolkit.request import ToolError

_EMULATIONS = {
    "x86_64": "elf_x86_64",
    "aarch64": "aarch64linux",
    "armv7": "armelf_linux_eabi",
    "riscv64": "elf64lriscv",
}
_NEEDED = ("libm.so.6", "libc.so.6")
"""Where glibc has the functions that generated code calls: expf, memcpy and their like."""
_ALSO_NEEDED = {"armv7": ("libgcc_s.so.1",)}
"""Processors that lack instructions, such as an integer division, and where functions for them are."""


def link_shared(objects: Sequence[Path], library: Path, cpu: str, folder: Path) -> None:
    """Link `objects` to `library`. folder: an empty directory for files in between.

    Symbols that are in none of the objects stay for the device's loader. Raises ToolError when lld does.
    """
    empty = folder / "empty"
    empty.write_bytes(b"")
    stubs = [folder / name for name in (*_NEEDED, *_ALSO_NEEDED.get(cpu, ()))]
    for stub in stubs:
        # A library without functions: all that is wanted is that the loader brings in the real one.
        _lld(cpu, "--soname", stub.name, "-o", str(stub), "--format=binary", str(empty))
    _lld(
        cpu,
        "--soname", library.name,
        "--gc-sections",
        "--strip-all",
        "--hash-style=gnu",
        "--build-id=none",
        "-z", "noexecstack",
        "-o", str(library),
        *(str(path) for path in objects),
        "--no-as-needed",
        *(str(stub) for stub in stubs),
    )  # fmt: skip


def _lld(cpu: str, *arguments: str) -> None:
    package = importlib.util.find_spec("ziglang")
    if package is None or package.origin is None:
        raise ToolError("the package `ziglang` is not in the tool's environment")
    zig = Path(package.origin).with_name("zig")
    command = [str(zig), "ld.lld", "-m", _EMULATIONS[cpu], "-shared", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"lld cannot link for {cpu}: {done.stderr.strip()[:2000]}")
