"""Apache TVM as a toolchain: the rule `tvm_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from modelbuild.api import (
    Artifact,
    Context,
    Conversion,
    DefaultInfo,
    DeviceBinaryInfo,
    Files,
    FixedPassToolchainInfo,
    Footprint,
    Lock,
    ModelInfo,
    PlatformInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    complete_architecture,
    device_lock,
    is_rounded,
    pass_params,
    shares_heads,
    weight_tensors,
)

_HERE = Path(__file__).parent
_BITS = {"tvm:fp32": 0, "tvm:int8": 8, "tvm:int4": 4}
_TARGETS: Mapping[str, Mapping[str, Any]] = {
    "x86_64": {"mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"},
    "aarch64": {"mtriple": "aarch64-linux-gnu", "mcpu": "generic", "mattr": ["+neon"]},
    "armv7": {
        "mtriple": "armv7-linux-gnueabihf",
        "mcpu": "generic",
        "mattr": ["+vfp3", "+neon"],
        "mfloat-abi": "hard",
    },
    "riscv64": {
        "mtriple": "riscv64-linux-gnu",
        "mcpu": "generic-rv64",
        "mattr": ["+m", "+a", "+f", "+d", "+c"],
        "mabi": "lp64d",
    },
}
"""CPU -> what TVM generates code for. x86-64-v3 has AVX2 and FMA."""
_COMMON = {"kind": "llvm", "opt-level": 2}
"""At level 3, LLVM unrolls loops that call functions such as `expf`: four times the code, and no quicker."""
_WHEELS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
"""CPUs for which there are wheels of TVM -> their platform. For the others TVM's runtime is built here."""
_LARGEST = (1 << 31) - (64 << 20)
"""Bytes of weights: code of a shared library reaches 2 GiB."""
_CODE: Mapping[str, Mapping[bool, tuple[int, int, int]]] = {
    "x86_64": {True: (34_000, 5_200, 5_000), False: (49_400, 1_500, 3_900)},
    "aarch64": {True: (25_200, 6_200, 4_100), False: (17_500, 6_400, 3_000)},
    "armv7": {True: (26_000, 5_400, 3_300), False: (23_700, 4_600, 2_600)},
    "riscv64": {True: (25_100, 6_400, 6_400), False: (22_400, 5_800, 5_400)},
}
"""CPU -> whether it is a language model -> bytes of code and headers: of any model; more for each layer; more
for unpacking. Fitted to fifteen models, see README.md."""
_SHARED_HEADS = {"x86_64": 13_500}
"""CPU -> more bytes of a language model whose heads share keys and values: loops over odd widths."""
_SHORT_ROWS = {"x86_64": (64, 5_000)}
"""CPU -> for rows of fewer tokens, more bytes: LLVM writes out the loops of attention."""
_RUNTIME_LIBRARY = {"armv7": 2_291_184, "riscv64": 2_273_200}
"""Bytes of the runtime that lies beside the model; its sources are pinned."""
_RUNTIME_BYTES = 5 << 20
"""Resident bytes of TVM's runtime and a small model's activations, as they were measured; without Python."""


@dataclass(frozen=True)
class TvmToolchainInfo(FixedPassToolchainInfo):
    """Makes shared libraries and runs them in TVM. mcpu: CPU -> LLVM's name of a processor."""

    mcpu: Mapping[str, str] = field(default_factory=dict, hash=False)
    runtime_sources: tuple[Artifact, ...] = ()

    def refusal(self, conversion: Conversion) -> str:
        """The device, weights of another width, a library too large."""
        model, format_, platform = conversion.model, conversion.format, conversion.platform
        reason = super().refusal(conversion)
        if reason:
            return reason
        if platform.cpu not in _TARGETS:
            return f"this toolchain generates code for {', '.join(_TARGETS)}, not for `{platform.cpu}`"
        if platform.os != "linux":
            return f"the library would be for Linux, and the platform's system is `{platform.os}`"
        bits = int(model.quantization.get("bits") or 0)
        if _BITS[format_] not in (0, bits):
            stored = f"{bits}-bit weights" if bits else "weights in floating point"
            return f"`{format_}` keeps {_BITS[format_]}-bit weights as they are, and the model has {stored}"
        size = sum(_stored(model, format_).values())
        if size > _LARGEST:
            return f"a shared library holds at most 2 GiB, and the weights take {size} bytes"
        return ""

    def footprint(self, conversion: Conversion) -> Footprint:
        """Weights to the byte, code as measured. In memory weights lie twice: mapped, and as tensors."""
        cpu, stored = conversion.platform.cpu, _stored(conversion.model, conversion.format)
        code = _code_bytes(conversion)
        parts = {**stored, "code": code}
        if cpu in _RUNTIME_LIBRARY:
            parts["runtime"] = _RUNTIME_LIBRARY[cpu]
        return Footprint(
            disk=sum(parts.values()),
            weights=2 * sum(stored.values()),
            runtime=_RUNTIME_BYTES + code,
            detail=parts,
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """The import, which every platform shares, and the library."""
        model, cpu = conversion.model, conversion.platform.cpu
        module = ctx.declare_file(f"{conversion.prefix}module.json")
        ctx.run(
            tool=PythonTool(_HERE / "import_tool.py", lock=Lock(_HERE / "requirements-import.lock")),
            mnemonic="TvmImport",
            inputs={"model": model.weights},
            outputs={"module": module},
            params={"format": conversion.format, **pass_params(conversion)},
            resources=Resources(ram=1 << 30),
            progress=f"importing {ctx.label.name} into TVM",
        )
        library = ctx.declare_file(f"{conversion.prefix}model.so")
        target = {**_COMMON, **_TARGETS[cpu]}
        if cpu in self.mcpu:
            target["mcpu"] = self.mcpu[cpu]
        ctx.run(
            tool=PythonTool(_HERE / "compile_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="TvmCompile",
            inputs={"module": module},
            outputs={"library": library},
            params={"cpu": cpu, "target": target},
            resources=Resources(ram=1 << 30),
            progress=f"compiling {ctx.label.name} for {cpu}",
        )
        binary = library if cpu in _WHEELS else self._with_runtime(ctx, conversion, library)
        return DeviceBinaryInfo(binary, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """TVM's runtime out of a wheel, or the one that lies beside the model."""
        if platform.os != "linux" or platform.cpu not in _TARGETS:
            return None
        if platform.cpu not in _WHEELS:
            return PythonTool(_HERE / "machine_tool.py", distributions=("numpy",))
        lock = device_lock(_HERE / "requirements-runtime.lock", platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock)

    def _with_runtime(self, ctx: Context, conversion: Conversion, library: Artifact) -> Artifact:
        """A tree of the library and of TVM's runtime for the CPU, which is built once for all models."""
        cpu, prefix = conversion.platform.cpu, conversion.prefix
        runtime = ctx.declare_file(f"{prefix}libtvm_runtime.so")
        ctx.run(
            tool=PythonTool(_HERE / "runtime_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="TvmRuntime",
            inputs={PurePosixPath(source.path).name: source for source in self.runtime_sources},
            outputs={"library": runtime},
            params={"cpu": cpu},
            resources=Resources(ram=2 << 30),
            progress=f"building TVM's runtime for {cpu}",
        )
        tree = ctx.declare_tree(f"{prefix}model")
        ctx.symlink_tree(tree, {"model.so": library, "libtvm_runtime.so": runtime})
        return tree


class TvmToolchain(Rule):
    """Apache TVM: compiles a model, weights included, to one shared library that TVM's virtual machine runs.

    `tvm:fp32` takes any model. `tvm:int8` and `tvm:int4` keep the codes and scales that `quantize` chose and
    unpack them where they are used; a model in floating point is refused: rounding is `quantize`'s business,
    which tells its error. Cross-compiled without a compiler or a C library of the device.

    For armv7 and riscv64, for which there is no package of TVM, the binary is a folder: the library, TVM's
    runtime, and functions that an application in C calls (`runtime/machine.h`).
    """

    mcpu: dict[str, str] = {}
    """CPU -> the processor to compile for, as LLVM calls it: `{"aarch64": "cortex-a72"}`. One that is not
    named gets code that every such CPU runs."""
    runtime_sources: Files = Field(default="//toolchains/tvm:runtime_sources", validate_default=True)
    """What is added to TVM's own sources where its runtime is built: for CPUs without wheels of it."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Only what the toolchain can do."""
        for cpu in self.mcpu:
            if cpu not in _TARGETS:
                ctx.fail(f"`mcpu` names `{cpu}`; this toolchain generates code for {', '.join(_TARGETS)}")
        sources = self.runtime_sources.artifacts
        return [DefaultInfo(), TvmToolchainInfo("tvm", tuple(_BITS), dict(self.mcpu), sources)]


def _stored(model: ModelInfo, format_: str) -> dict[str, int]:
    """Bytes of what the library holds: part -> bytes. A tied output matrix and embedding are stored once."""
    bits = _BITS[format_]
    quantization = model.quantization
    parts = {"weights": 0, "scales": 0, "floats": 0}
    for tensor in weight_tensors(model.architecture):
        if not bits or not is_rounded(model, tensor):
            parts["floats"] += 4 * tensor.parameters
            continue
        rows, columns = tensor.shape
        groups = columns // (int(quantization.get("group_size") or 0) or columns)
        parts["weights"] += rows * columns if bits == 8 else rows * -(-columns // 2)
        scale = 4 if quantization.get("symmetric", True) else 5
        parts["scales"] += scale * rows * groups
    return parts


def _code_bytes(conversion: Conversion) -> int:
    """Of everything in the library but weights."""
    model, cpu = conversion.model, conversion.platform.cpu
    keys = complete_architecture(model.architecture)
    base, layer, unpacking = _CODE[cpu][model.is_text]
    code = base + layer * int(keys["num_hidden_layers"])
    code += unpacking if _BITS[conversion.format] else 0
    if model.is_text:
        code += _SHARED_HEADS.get(cpu, 0) if shares_heads(keys) else 0
        shorter, more = _SHORT_ROWS.get(cpu, (0, 0))
        code += more if conversion.sequence_length < shorter else 0
    return code
