"""Actions: a tool, parameters, named inputs and declared outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modelbuild.artifact import Artifact
from modelbuild.label import Label
from modelbuild.runner import Runner
from modelbuild.tool import Tool

Determinism = Literal["bitwise", "numeric", "none"]


@dataclass(frozen=True, slots=True)
class Resources:
    """What an action needs while it runs. cpu in cores, the rest in bytes except gpu (devices)."""

    cpu: float = 1.0
    ram: int = 64 << 20
    disk: int = 0
    gpu: int = 0
    gpu_ram: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for less than nothing, which would make room for others."""
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is negative: {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Action:
    """One run of a tool. Frozen; hashable by identity of its first output.

    inputs: logical name -> artifact. The logical name is where the input lies in the action's directory
    (`in/model`, or for genrule the workspace path). Names, not paths of artifacts, are in the key.
    outputs: logical name -> artifact, likewise (`out/model`).
    platform: the constraint values the rule said this action depends on.
    declared_at: `targets/BUILD.models:12`, for errors.
    threads: how many threads the tool may use; it changes floating-point sums, so it is in the key.
    runner: where a Python tool runs when that is not this machine; None: here.
    volatile: logical names of outputs that no two runs make alike, such as times; `--check` passes over them.
    """

    # In the key. HASHED_FIELDS and LEFT_OUT_FIELDS in actions/key.py say so, and a test compares.
    tool: Tool
    params: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Artifact]
    platform: tuple[str, ...] = ()
    threads: int = 1
    runner: Runner | None = None
    # Left out of the key.
    owner: Label = field(default=Label("", "", "?"))
    mnemonic: str = "Action"
    progress: str = ""
    declared_at: str = ""
    resources: Resources = field(default_factory=Resources)
    determinism: Determinism = "bitwise"
    resumable: bool = False
    volatile: tuple[str, ...] = ()

    @property
    def primary_output(self) -> Artifact:
        """The first declared output; identifies the action within one graph."""
        return next(iter(self.outputs.values()))
