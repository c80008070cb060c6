"""The actions that tell how a device binary answers: on the device, in torch, and how far they are apart.

For rules that measure: `reference_logits`, `parity_test`, `latency_test`, `artifact_matrix`. Equal actions
have equal keys, whoever declares them, so that a parent answers the probes once for twelve devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelbuild.api import (
    TEXT_TASKS,
    TRANSFORMERS_PRELOAD,
    Artifact,
    Context,
    DeviceBinaryInfo,
    DeviceRunInfo,
    ModelInfo,
    ProbesInfo,
    PythonTool,
    Resources,
)

TORCH = ("numpy", "safetensors", "torch", "transformers", "compressed-tensors", "tokenizers")
_HERE = Path(__file__)


@dataclass(frozen=True, slots=True)
class Execution:
    """What a device made of the probes. logits: see toolkit/logits_file. timing: JSON, not repeatable."""

    logits: Artifact
    timing: Artifact


def declare_execution(
    ctx: Context,
    run: DeviceRunInfo,
    binary: DeviceBinaryInfo,
    probes: ProbesInfo,
    prefix: str = "",
    threads: int = 1,
) -> Execution:
    """Declare that the device's runtime answers the probes. Refuses the target when it cannot be run here.

    The times are those of the one run whose logits are kept; under emulation they say nothing of a device.
    """
    toolchain, platform, length = run.toolchain, run.platform, run.conversion.sequence_length
    tool = toolchain.device_tool(platform)
    reason = toolchain.why_not_run(platform)
    if reason or tool is None:
        ctx.fail(f"the binary cannot be run: {reason}")
    if toolchain.fixed_length and probes.length and probes.length != length:
        ctx.fail(
            f"the binary takes rows of {length} tokens, and those of the probes have {probes.length}",
            hint=f"sequence_length = {probes.length}",
        )
    logits = ctx.declare_file(f"{prefix}logits.npy")
    timing = ctx.declare_file(f"{prefix}timing.json")
    ctx.run(
        tool=tool,
        mnemonic="Probe",
        inputs={"binary": binary.binary, "probes": probes.directory},
        outputs={"logits": logits, "timing": timing},
        params={"task": probes.task},
        threads=threads,
        resources=Resources(cpu=threads, ram=1 << 30),
        determinism="numeric",
        volatile=("timing",),
        runner=platform.runner,
        progress=f"asking {binary.format} on {platform.label.name}",
    )
    return Execution(logits, timing)


def declare_reference(ctx: Context, model: ModelInfo, probes: ProbesInfo, prefix: str = "") -> Artifact:
    """Declare that `model` answers the probes in torch; the logits. Refuses a model of another task."""
    if model.task != probes.task:
        ctx.fail(f"the probes are for `{probes.task}`, and the model is for `{model.task}`")
    known = model.tokenizer.vocab_size if model.tokenizer else 0
    if known and probes.tokenizer and known != probes.tokenizer.vocab_size:
        ctx.fail(
            f"the model has {known} tokens, and the probes were encoded with {probes.tokenizer.vocab_size}"
        )
    logits = ctx.declare_file(f"{prefix}reference.npy")
    file = "reference_tool.py" if probes.task in TEXT_TASKS else "image_reference_tool.py"
    ctx.run(
        tool=PythonTool(_HERE.with_name(file), TORCH, TRANSFORMERS_PRELOAD),
        mnemonic="Reference",
        inputs={"model": model.weights, "probes": probes.directory},
        outputs={"logits": logits},
        params={},
        resources=Resources(ram=2 << 30),
        determinism="numeric",
        progress=f"asking the parent of {ctx.label.name}",
    )
    return logits


def declare_parity(
    ctx: Context,
    logits: Artifact,
    reference: Artifact,
    teacher_reference: Artifact | None,
    probes: ProbesInfo,
    prefix: str = "",
) -> Artifact:
    """Declare the comparison: `parity.json`, see docs/guides/devices.md for what is in it."""
    parity = ctx.declare_file(f"{prefix}parity.json")
    inputs = {"logits": logits, "reference": reference, "probes": probes.directory}
    if teacher_reference is not None:
        inputs["teacher"] = teacher_reference
    ctx.run(
        tool=PythonTool(_HERE.with_name("parity_tool.py"), ("numpy",), ("numpy",)),
        mnemonic="Parity",
        inputs=inputs,
        outputs={"parity": parity},
        params={},
        resources=Resources(ram=512 << 20),
    )
    return parity
