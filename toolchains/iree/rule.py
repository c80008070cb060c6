"""The rule `iree_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from modelbuild.api import (
    Context,
    Conversion,
    DefaultInfo,
    DeviceBinaryInfo,
    FixedPassToolchainInfo,
    Footprint,
    Lock,
    PlatformInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    complete_architecture,
    declare_onnx_export,
    device_lock,
    optional_vectors,
    pass_bytes,
    shares_heads,
    weight_tensors,
)

_HERE = Path(__file__).parent
_FORMAT = "iree:fp32"
_ALIGNED = 64
"""Bytes; where each constant of a module begins."""
_VECTOR = 8
"""Numbers; a matrix product of other sizes gets code for the rest."""
_TILE = 64
"""Numbers; the most of a row that code makes at a time, in pieces that are equal where they can be."""
_CPUS = ("x86_64", "aarch64", "riscv64")
_IMAGE_CODE: Mapping[str, tuple[int, int, int]] = {
    "all": (27_990, 17_990, 18_490),
    "layer": (1_760, 1_780, 1_770),
    "second layer": (380, 420, 1_100),
    "layer with biases": (70, 110, 110),
    "odd hidden": (80, -1_000, -240),
    "layer of odd hidden": (410, 410, 400),
    "layer of odd hidden and heads": (240, 240, 240),
    "odd inner": (830, 520, 2_880),
    "odd head": (2_080, 890, -510),
    "narrow head": (-880, -180, -950),
    "matmul": (1_570, 990, 8_780),
    "untiled matmul": (-170, 1_110, 1_240),
    "matmul in eights": (950, -1_780, -320),
    "colours": (710, 210, -1_290),
    "colours, hidden of 64": (1_770, 2_390, 4_060),
    "long rows": (1_220, 510, 2_470),
    "long inner rows": (110, -80, 1_140),
    "odd labels": (440, 930, 2_090),
    "few labels": (-300, 450, 360),
    "one head": (-6_480, -480, 5_650),
    "over four heads": (760, -110, 6_350),
}
"""Trait of a classifier -> bytes of code and headers that it brings on each of these CPUs; see README.md."""
_ATTENTION_CODE: Mapping[int, tuple[tuple[int, int, int], ...]] = {
    5: ((-10_110, -9_910, -3_190), (-1_990, -2_020, 0), (-730, -2_490, 0)),
    10: ((-7_780, -6_960, -2_280), (-1_420, 0, -600), (0, 0, -200)),
    17: ((-6_180, -6_330, -2_040), (-340, -1_300, 260), (360, 0, 8_590)),
    26: ((-3_690, -4_060, -3_870), (780, 0, 0), (4_950, 0, 0)),
    37: ((-1_480, -1_820, -2_010), (1_080, 0, 0), (-3_090, 0, 0)),
    50: ((2_370, 2_600, -890), (900, 650, 0), (-1_470, 6_250, 5_100)),
    65: ((8_430, 4_970, 2_900), (120, 640, -430), (490, -3_980, 0)),
    82: ((-420, -1_480, 450), (420, 1_500, 0), (-1_420, 0, 0)),
    101: ((1_950, 1_310, -610), (490, -750, 250), (-5_140, 0, 1_140)),
    122: ((-110, 110, -380), (0, 0, 0), (0, 0, 0)),
    145: ((11_350, 12_030, 2_220), (160, 1_120, 0), (2_000, -730, 0)),
    170: ((5_780, 5_730, 8_100), (0, 0, 0), (0, 0, 0)),
    197: ((1_670, 1_310, -1_030), (1_360, 0, 50), (260, 0, -8_970)),
    226: ((3_460, 3_190, -290), (0, 0, 0), (0, 0, 0)),
    257: ((-170, -1_140, -320), (0, 0, 0), (0, 0, 0)),
}
"""Tokens of a classifier -> on each CPU, what more its attention takes: many heads, narrow ones, one."""
_TEXT_CODE: Mapping[str, tuple[int, int, int]] = {
    "all": (29_680, 24_970, 157_980),
    "layer": (1_420, 1_460, 1_450),
    "second layer": (60, 1_250, 8_950),
    "bias": (20, -10, 0),
    "biases": (610, 660, -330),
    "norm": (210, 190, 1_280),
    "norms": (1_460, 930, -1_050),
    "odd hidden": (14_430, -150, 0),
    "untiled hidden": (2_280, -680, 990),
    "odd inner": (4_380, 2_010, -10_170),
    "untiled inner": (3_730, -100, -11_220),
    "odd vocabulary": (1_180, -840, -3_290),
    "untiled vocabulary": (2_280, 1_030, -850),
    "odd head": (-1_060, 1_440, 0),
    "odd shared heads": (9_640, 1_440, 0),
    "shared heads": (4_360, 1_780, -5_860),
    "one pair": (-800, -1_080, -20_300),
    "middle length": (-220, -150, 4_360),
    "long": (2_820, 510, -7_590),
    "odd length": (50, 0, 0),
    "untied": (-970, -1_200, -330),
}
"""The same of language models."""
_WHEELS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
"""CPU -> the platform of the runtime's wheels."""
_RUNTIME_BYTES = 11 << 20
"""Peak of iree-run-module with a model of 256 KB, less the model."""


class IreeToolchain(Rule):
    """Compiles a model with IREE to native code for one CPU: one `.vmfb` file, weights inside.

    The code needs the CPU it is compiled for and no operating system of a certain kind.
    """

    x86_64_cpu: str = "x86-64-v3"
    """LLVM's name of the least x86-64 CPU: v3 has AVX2 and FMA. Without FMA, as in v2, IREE calls a function
    for each multiplication and addition, and a model takes ten times as long."""
    aarch64_cpu: str = "generic"
    """LLVM's name of the least 64-bit Arm CPU; `generic` is ARMv8-A with NEON."""
    riscv64_features: str = "+m,+a,+f,+d,+c"
    """LLVM's features of the least 64-bit RISC-V CPU, by default RV64GC."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Say what can be made; the actions are those of whoever converts a model."""
        return [DefaultInfo(), IreeToolchainInfo("iree", (_FORMAT,), self._targets())]

    def _targets(self) -> dict[str, tuple[str, ...]]:
        features = self.riscv64_features.split(",")
        return {
            "x86_64": (*_triple("x86_64"), f"--iree-llvmcpu-target-cpu={self.x86_64_cpu}"),
            "aarch64": (*_triple("aarch64"), f"--iree-llvmcpu-target-cpu={self.aarch64_cpu}"),
            "riscv64": (
                *_triple("riscv64"),
                "--iree-llvmcpu-target-abi=lp64d",
                f"--iree-llvmcpu-target-cpu-features={self.riscv64_features}",
                # Peeling loops for vectors that the CPU lacks made 1 MB of scalar code, in minutes.
                *(() if "+v" in features else ("--iree-llvmcpu-vector-pproc-strategy=none",)),
            ),
        }


@dataclass(frozen=True)
class IreeToolchainInfo(FixedPassToolchainInfo):
    """targets: name of a CPU -> the flags of iree-compile for it."""

    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def refusal(self, conversion: Conversion) -> str:
        """Other CPUs."""
        cpu, known = conversion.platform.cpu, ", ".join(f"`{cpu}`" for cpu in self.targets)
        refused = (
            ""
            if cpu in self.targets
            else f"this toolchain compiles for {known}, and the platform's CPU is `{cpu}`"
        )
        return super().refusal(conversion) or refused

    def footprint(self, conversion: Conversion) -> Footprint:
        """Every weight takes four bytes, packed ones too: IREE gets the floats that they stand for."""
        weights, tables, code = (
            _weight_bytes(conversion),
            _table_bytes(conversion),
            _code_bytes(conversion),
        )
        return Footprint(
            disk=weights + code + tables,
            weights=weights + tables,
            runtime=code + _RUNTIME_BYTES + pass_bytes(conversion),
            detail={"weights": weights, "code": code, "tables": tables},
        )

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """Three actions: ONNX, MLIR, code. Platforms share the first two."""
        prefix, platform = conversion.prefix, conversion.platform
        onnx = declare_onnx_export(ctx, conversion.model, conversion.sequence_length, prefix)
        mlir = ctx.declare_file(f"{prefix}model.mlirbc")
        ctx.run(
            tool=PythonTool(_HERE / "import_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="IreeImport",
            inputs={"onnx": onnx},
            outputs={"mlir": mlir},
            params={},
            resources=Resources(ram=1 << 30),
            progress=f"importing {ctx.label.name} into MLIR",
        )
        binary = ctx.declare_file(f"{prefix}model.vmfb")
        ctx.run(
            tool=PythonTool(_HERE / "compile_tool.py", lock=Lock(_HERE / "requirements.lock")),
            mnemonic="IreeCompile",
            inputs={"mlir": mlir},
            outputs={"binary": binary},
            params={
                "target": list(self.targets[platform.cpu]),
                "pad_matrices": not conversion.model.is_text,
            },
            resources=Resources(ram=2 << 30),
            progress=f"compiling {ctx.label.name} for {platform.cpu}",
        )
        return DeviceBinaryInfo(binary, conversion.format, self.runtime, platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """IREE's Python runtime, of which there are wheels for Linux on two of the CPUs."""
        lock = device_lock(_HERE / "runtime.lock", platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None


def _weight_bytes(conversion: Conversion) -> int:
    """Of the weights as stored: each begins at a multiple of 64 bytes.

    Matrices of a classifier have widths of multiples of 8, and its class token lies in a row for all tokens.
    """
    architecture = conversion.model.architecture
    shapes = {tensor.name: tensor.shape for tensor in weight_tensors(architecture)}
    padded = set[str]()
    if not conversion.model.is_text:
        shapes["vit.embeddings.cls_token"] = shapes["vit.embeddings.position_embeddings"]
        padded = {
            tensor.name for tensor in weight_tensors(architecture) if tensor.role in ("matrix", "output")
        }
    return sum(
        _up(4 * prod(_up(size, _VECTOR) if name in padded else size for size in shape), _ALIGNED)
        for name, shape in shapes.items()
    )


def _table_bytes(conversion: Conversion) -> int:
    """Of a language model's mask, and of the sines and cosines of its positions."""
    if not conversion.model.is_text:
        return 0
    length = conversion.sequence_length
    head = int(complete_architecture(conversion.model.architecture)["head_dim"])
    return _up(4 * length * length, _ALIGNED) + 2 * _up(4 * length * head, _ALIGNED)


def _code_bytes(conversion: Conversion) -> int:
    """Of code and headers."""
    column = _CPUS.index(conversion.platform.cpu)
    if conversion.model.is_text:
        return sum(count * _TEXT_CODE[name][column] for name, count in _text_traits(conversion).items())
    tokens, kind = _attention(conversion)
    traits = sum(count * _IMAGE_CODE[name][column] for name, count in _image_traits(conversion).items())
    return traits + (_ATTENTION_CODE[tokens][column][kind] if tokens in _ATTENTION_CODE else 0)


def _attention(conversion: Conversion) -> tuple[int, int]:
    """The tokens of a classifier, and which code its heads get: many heads, many of up to 8 wide, or one."""
    keys = complete_architecture(conversion.model.architecture)
    heads = int(keys["num_attention_heads"])
    narrow = int(keys["hidden_size"]) // heads <= _VECTOR
    return _tokens(keys), 2 if heads == 1 else int(narrow)


def _tokens(keys: Mapping[str, Any]) -> int:
    shapes = {tensor.name: tensor.shape for tensor in weight_tensors(keys)}
    return shapes["vit.embeddings.position_embeddings"][1]


def _image_traits(conversion: Conversion) -> dict[str, int]:
    keys = complete_architecture(conversion.model.architecture)
    tokens = _tokens(keys)
    hidden, inner = int(keys["hidden_size"]), int(keys["intermediate_size"])
    layers, heads, labels = (
        int(keys[name]) for name in ("num_hidden_layers", "num_attention_heads", "num_labels")
    )
    wide, narrow = _up(hidden, _VECTOR), _up(inner, _VECTOR)
    matmuls = {(wide, wide), (narrow, wide), (wide, narrow)}
    return {
        "all": 1,
        "layer": layers,
        "second layer": int(layers > 1),
        "layer with biases": layers * int(keys["qkv_bias"]),
        "odd hidden": int(hidden % _VECTOR != 0),
        "layer of odd hidden": layers * int(hidden % _VECTOR != 0),
        "layer of odd hidden and heads": layers * int(hidden % _VECTOR != 0 and heads > 1),
        "odd inner": int(inner % _VECTOR != 0),
        "odd head": int(hidden // heads % _VECTOR != 0 and hidden // heads > _VECTOR),
        "narrow head": int(hidden // heads <= _VECTOR),
        "matmul": len(matmuls),
        "untiled matmul": sum(_untiled(outputs) for outputs, _ in matmuls),
        "matmul in eights": sum(outputs > _TILE and outputs % 16 != 0 for outputs, _ in matmuls),
        "colours": int(keys["num_channels"] > 1),
        "colours, hidden of 64": int(keys["num_channels"] > 1 and hidden >= 64),
        "long rows": int(tokens * hidden > 4096),
        "long inner rows": int(inner % _VECTOR == 0 and tokens * inner > 4096),
        "odd labels": int(labels >= 16 and labels % 16 != 0),
        "few labels": int(labels < 10),
        "one head": int(heads == 1),
        "over four heads": int(heads > 4),
    }


def _text_traits(conversion: Conversion) -> dict[str, int]:
    keys = complete_architecture(conversion.model.architecture)
    biases, norms = optional_vectors(keys)
    hidden, inner, vocabulary, head, layers = (
        int(keys[name])
        for name in ("hidden_size", "intermediate_size", "vocab_size", "head_dim", "num_hidden_layers")
    )
    length = conversion.sequence_length
    return {
        "all": 1,
        "layer": layers,
        "second layer": int(layers > 1),
        "bias": biases,
        "biases": int(biases > 0),
        "norm": norms,
        "norms": int(norms > 0),
        "odd hidden": int(hidden % _VECTOR != 0),
        "untiled hidden": _untiled(hidden),
        "odd inner": int(inner % _VECTOR != 0),
        "untiled inner": _untiled(inner),
        "odd vocabulary": int(vocabulary % _VECTOR != 0),
        "untiled vocabulary": _untiled(vocabulary),
        "odd head": int(head % _VECTOR != 0),
        "odd shared heads": int(head % _VECTOR != 0 and shares_heads(keys)),
        "shared heads": int(shares_heads(keys)),
        "one pair": int(keys["num_key_value_heads"] == 1),
        "middle length": int(24 < length <= 48),
        "long": int(length > 48),
        "odd length": int(length > 24 and length % 16 != 0),
        "untied": int(not keys["tie_word_embeddings"]),
    }


def _untiled(width: int) -> int:
    """1 for a matrix whose rows cannot be cut in equal pieces, and so gets code for the last piece."""
    return int(width > _TILE and width % 32 != 0 and width % 48 != 0)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _triple(cpu: str) -> tuple[str, ...]:
    # The embedded kind of ELF file, which IREE's own loader reads on every operating system.
    return (f"--iree-llvmcpu-target-triple={cpu}-unknown-unknown-eabi-elf",)
