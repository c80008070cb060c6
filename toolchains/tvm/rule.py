"""Apache TVM as a toolchain: the rule `tvm_toolchain`."""

from __future__ import annotations

import math
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
    optional_vectors,
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
_COMMON = {"kind": "llvm", "opt-level": 2, "cl-opt": ["-unroll-threshold-default:uint=0"]}
"""Loops stay loops: LLVM would write out some, by their length, into code whose size nobody foretells, and no
quicker. At level 3 it does so whatever the option says."""
_WHEELS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
"""CPUs for which there are wheels of TVM -> their platform. For the others TVM's runtime is built here."""
_PARALLEL = 1 << 21
"""Multiplications from which on schedule.py takes several threads."""
_LARGEST = (1 << 31) - (64 << 20)
"""Bytes of weights: code of a shared library reaches 2 GiB."""
_FLOATS = {"x86_64": 8, "x86-64-v2": 4, "aarch64": 4, "armv7": 4, "riscv64": 2}
"""CPU, or processor that `mcpu` names -> floats of a vector, as schedule.py takes them."""
_CODE: Mapping[str, Mapping[bool, tuple[int, ...]]] = {
    "x86_64": {
        True: (17510, 5080, -350, 570, 750, 560, 0, 300, 1330, -600, -2720, -480, 80, 150, 320, 1120, 1190),
        False: (16160, 4870, -3360, 710, 160, 1090, 35, 570, 880, -190, -1690, -310),
    },
    "x86-64-v2": {
        True: (18000, 5010, 280, 640, 690, 310, 21, 250, 620, -250, -2310, -560, 120, -420, 430, 1710, 1010),
        False: (13310, 4560, -580, 730, 590, 430, 21, 180, 1210, -610, -2220, -730),
    },
    "aarch64": {
        True: (15910, 5080, 20, 560, 370, 320, 16, 130, 740, -220, -1760, -650, 410, 290, 270, 1050, 1070),
        False: (14630, 4730, -1410, 530, 160, 630, 25, 210, 450, -30, -1020, -430),
    },
    "armv7": {
        True: (14630, 5050, 40, 600, 310, 290, 39, 160, 650, -170, -1760, -750, 470, 260, 260, 1040, 1100),
        False: (13260, 4740, -1660, 520, -20, 690, 64, 230, 310, 40, -1020, -380),
    },
    "riscv64": {
        True: (16590, 5050, 170, 560, 320, 260, 56, 190, 470, -70, -1400, -880, 170, 140, 270, 1210, 1040),
        False: (14250, 4730, -1130, 550, 150, 540, 59, 180, 410, -10, -1120, -420),
    },
}
"""As `_FLOATS`; whether it is a language model -> bytes for each of `_code_traits`. README.md: how fitted."""
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
        code = _code_bytes(conversion, self.mcpu.get(cpu, ""))
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


def _code_bytes(conversion: Conversion, processor: str) -> int:
    """Of everything in the library but weights. processor: what `mcpu` names; it may have been measured."""
    measured = processor if processor in _CODE else conversion.platform.cpu
    traits = _code_traits(conversion, _FLOATS[measured])
    bytes_of = _CODE[measured][conversion.model.is_text]
    return round(sum(each * trait for each, trait in zip(bytes_of, traits, strict=True)))


def _code_traits(conversion: Conversion, floats: int) -> list[float]:
    """What code depends on: one function for each shape of a multiplication, instructions for each layer."""
    model = conversion.model
    keys = complete_architecture(model.architecture)
    layers, heads = int(keys["num_hidden_layers"]), int(keys["num_attention_heads"])
    width = int(keys["head_dim"] if model.is_text else keys["hidden_size"] // heads)
    packed, length = _BITS[conversion.format] > 0, _row_length(conversion)
    products = _products(conversion, length)
    attention = {(length, width, length, heads), (length, length, width, heads)}
    kinds = sum(is_packed == packed for *_, is_packed in products)
    every = {(*shape, 1) for *shape, _ in products} | attention
    traits = [
        1,
        layers,
        packed,
        packed * layers,
        kinds,
        packed * kinds,
        sum(summed_vectors(rows, columns, floats) for rows, _, columns, _ in every),
        sum(rows * inputs * columns * count >= _PARALLEL for rows, inputs, columns, count in every),
        math.log2(length),
        math.log2(length / width),
        heads == 1,
        layers == 1,
    ]
    if model.is_text:
        biases, norms = (count > 0 for count in optional_vectors(keys))
        traits += [shares_heads(keys), biases, biases * layers, norms, norms * layers]
    return traits


def _row_length(conversion: Conversion) -> int:
    """Tokens of a row, or patches of a picture and the class token."""
    tensors = weight_tensors(conversion.model.architecture)
    positions = (tensor.shape[1] for tensor in tensors if tensor.name.endswith("position_embeddings"))
    return next(positions, conversion.sequence_length)


def _products(conversion: Conversion, length: int) -> set[tuple[int, int, int, bool]]:
    """Rows, inputs, outputs, and whether the weight is packed, of every multiplication by a weight."""
    model = conversion.model
    found = set()
    for tensor in weight_tensors(model.architecture):
        if tensor.role != "vector":
            rows = 1 if tensor.name.startswith("classifier") else length
            rows -= len(tensor.shape) > 2  # Patches, of which the class token is none.
            is_packed = _BITS[conversion.format] > 0 and is_rounded(model, tensor)
            found.add((rows, math.prod(tensor.shape[1:]), tensor.shape[0], is_packed))
    return found


def summed_vectors(rows: int, columns: int, floats: int) -> int:
    """How many vectors of outputs a function sums at a time; tiles.py, which is a tool's, chooses so."""
    together = max(each for each in range(1, 7) if rows % each == 0)
    vectors, most = columns // math.gcd(columns, floats), 12 // together if together > 1 else 8
    return together * max(each for each in range(1, most + 1) if vectors % each == 0)
