"""The rule `iree_toolchain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    table_bytes,
    weight_tensors,
)

_HERE = Path(__file__).parent
_FORMAT = "iree:fp32"
_CODE: Mapping[str, tuple[int, int]] = {
    "x86_64": (39_100, 78_000),
    "aarch64": (30_500, 48_000),
    "riscv64": (178_900, 65_000),
}
"""CPU -> bytes of code and headers of a language model without layers, of a classifier; see README.md."""
_LAYER, _BIAS, _HEAD_NORM = 1_450, 550, 1_720
"""Of a language model: more bytes for each layer, bias, and norm of queries or keys."""
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
        model = conversion.model
        weights = 4 * sum(tensor.parameters for tensor in weight_tensors(model.architecture))
        code, tables = _code_bytes(conversion), table_bytes(conversion)
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
            params={"target": list(self.targets[platform.cpu])},
            resources=Resources(ram=2 << 30),
            progress=f"compiling {ctx.label.name} for {platform.cpu}",
        )
        return DeviceBinaryInfo(binary, conversion.format, self.runtime, platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """IREE's Python runtime, of which there are wheels for Linux on two of the CPUs."""
        lock = device_lock(_HERE / "runtime.lock", platform, _WHEELS)
        return PythonTool(_HERE / "device_tool.py", lock=lock) if lock else None


def _code_bytes(conversion: Conversion) -> int:
    """Of code and headers."""
    model = conversion.model
    text, image = _CODE[conversion.platform.cpu]
    if not model.is_text:
        return image
    keys = complete_architecture(model.architecture)
    biases, norms = optional_vectors(keys)
    return text + _LAYER * int(keys["num_hidden_layers"]) + _BIAS * biases + _HEAD_NORM * norms


def _triple(cpu: str) -> tuple[str, ...]:
    # The embedded kind of ELF file, which IREE's own loader reads on every operating system.
    return (f"--iree-llvmcpu-target-triple={cpu}-unknown-unknown-eabi-elf",)
