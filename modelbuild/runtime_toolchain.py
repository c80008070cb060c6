"""Runtime toolchains: what makes device binaries for one runtime, and how that runtime is called.

A toolchain derives from RuntimeToolchainInfo; its rule returns an instance. `device_binary`, `parity_test`
and `artifact_matrix` ask nothing else of it, so that a runtime nobody has heard of needs no change of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from modelbuild.platform import PlatformInfo
from modelbuild.provider import DatasetInfo, DeviceBinaryInfo, ModelInfo, Provider
from modelbuild.tool import PythonTool

if TYPE_CHECKING:
    from modelbuild.analysis.context import Context

DEFAULT_LENGTH = 64
"""Tokens of one pass where nobody says how many."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Predicted bytes of one model in one format. disk: the artifact. weights, kv_cache, runtime: memory.

    detail: what `disk` is made of, part -> bytes, for people.
    """

    disk: int
    weights: int
    kv_cache: int = 0
    runtime: int = 0
    detail: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def ram(self) -> int:
        """All memory that running it takes."""
        return self.weights + self.kv_cache + self.runtime


@dataclass(frozen=True)
class Conversion:
    """What a toolchain is asked about, and then to make.

    prefix: for the names of its outputs, `""` or `drone/`. sequence_length: tokens of one pass, for runtimes
    with static shapes; means nothing for images. calibration: where it is needed.
    """

    model: ModelInfo
    format: str
    platform: PlatformInfo
    prefix: str = ""
    sequence_length: int = DEFAULT_LENGTH
    calibration: DatasetInfo | None = None


@dataclass(frozen=True)
class RuntimeToolchainInfo(Provider):
    """The base of runtime toolchains.

    runtime: `llama.cpp`. formats: what it makes, `gguf:Q4_0`, the one it would choose first. named_only:
    those for models of a certain kind, which nobody gets without asking for them by name. fixed_length:
    whether a binary takes rows of `sequence_length` tokens and no others.
    """

    fixed_length: ClassVar[bool] = False

    runtime: str
    formats: tuple[str, ...]
    named_only: frozenset[str] = field(default=frozenset(), kw_only=True)

    def refusal(self, conversion: Conversion) -> str:
        """Why the model cannot be had in this format on this platform, in one sentence; empty when it can."""
        return ""

    def footprint(self, conversion: Conversion) -> Footprint:
        """Bytes on disk and in memory, from the architecture alone; asked of what is not refused."""
        raise NotImplementedError

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        """Declare the actions that make the binary."""
        raise NotImplementedError

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        """The tool that runs a binary on `platform`, with its wheels; None: there is no runtime to be had.

        Called with inputs `binary` and `probes`, it writes the outputs `logits` and `timing`; see
        modelbuild.toolkit.device_run. Called by `modelbuild run`, it has `request.arguments` and no outputs.
        """
        raise NotImplementedError

    def why_not_run(self, platform: PlatformInfo) -> str:
        """Why a binary for `platform` cannot be run from the machine that builds; empty when it can."""
        if platform.runner is None:
            return platform.not_run or f"`{platform.label}` names no `runner`"
        if self.device_tool(platform) is None:
            return f"{self.runtime} has no runtime that this project can call on `{platform.label}`"
        return ""


@dataclass(frozen=True)
class DeviceRunInfo(Provider):
    """Of a device binary that a toolchain made: what it was asked for, and what runs it."""

    toolchain: RuntimeToolchainInfo
    conversion: Conversion

    @property
    def model(self) -> ModelInfo:
        """What it was made from."""
        return self.conversion.model

    @property
    def platform(self) -> PlatformInfo:
        """What it was made for."""
        return self.conversion.platform
