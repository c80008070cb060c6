"""The rule `device_binary`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from modelbuild.api import (
    DEFAULT_LENGTH,
    AnalysisError,
    Context,
    Conversion,
    DatasetInfo,
    DefaultInfo,
    Dep,
    DeviceRunInfo,
    ModelInfo,
    PlatformInfo,
    Provider,
    Rule,
    RunInfo,
    parse_label,
)
from modelbuild.rules.device_binary.choice import AUTO, DEFAULT_TYPE, NoChoice, choose


class DeviceBinary(Rule):
    """What a device's runtime loads, made of `model` by a toolchain that fits the platform.

    The toolchain is the first registered one that is for the platform, makes `format` and takes the model.
    Predicted size and memory are checked against the platform's budget before anything is trained.

        device_binary(name = "drone-int4", model = ":int4", platform = "//toolchains/platforms:drone")

    `modelbuild run` runs it through the platform's runner.
    """

    needs_platform: ClassVar[bool] = True
    platform_attribute: ClassVar[str] = "platform"

    model: Dep[ModelInfo]
    """The model, quantized already where the format is not to round it."""
    format: str = AUTO
    """Such as `gguf:Q4_0`, `tvm:int8`; `auto`: the first that a toolchain offers and that fits the budget."""
    platform: Dep[PlatformInfo] | None = None
    """What it is for; without one, what `--platform` says."""
    calibration: Dep[DatasetInfo] | None = None
    """For formats that measure activations."""
    sequence_length: int = Field(default=DEFAULT_LENGTH, ge=1)
    """Tokens of one pass, for runtimes that compile static shapes."""
    toolchain_type: str = DEFAULT_TYPE
    """What toolchains are registered as."""

    @classmethod
    def toolchain_types(cls, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """The one type."""
        return (str(attributes.get("toolchain_type", DEFAULT_TYPE)),)

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Choose a toolchain and have it declare the conversion."""
        asked = Conversion(
            self.model.info,
            self.format,
            ctx.platform,
            sequence_length=self.sequence_length,
            calibration=self.calibration.info if self.calibration else None,
        )
        choice = choose(ctx, parse_label(self.toolchain_type), asked)
        if isinstance(choice, NoChoice):
            raise AnalysisError(
                f"`{ctx.label}` cannot be made of `{self.model.label}`: {choice.reason}",
                notes=choice.notes,
                hint=choice.hint,
            )
        platform = asked.platform
        binary = choice.toolchain.convert(ctx, choice.conversion)
        run = DeviceRunInfo(choice.toolchain, choice.conversion)
        providers: list[Provider] = [DefaultInfo((binary.binary,)), binary, run]
        tool = choice.toolchain.device_tool(platform) if platform.runner is not None else None
        if tool is not None:
            providers.append(RunInfo(tool, {"binary": binary.binary}, runner=platform.runner))
        return providers
