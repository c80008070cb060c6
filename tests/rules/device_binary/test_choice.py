"""Which toolchain and format a device gets, and what is said when it gets none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from modelbuild.api import (
    Artifact,
    Conversion,
    DeviceBinaryInfo,
    DeviceRunInfo,
    Footprint,
    ModelInfo,
    RuntimeToolchainInfo,
)
from modelbuild.errors import AnalysisError
from modelbuild.rules.device_binary.rule import DeviceBinary
from modelbuild.testing import RuleRunner, RuleTarget

SIZES = {"large": 1000, "small": 100, "ternary": 10}


@dataclass(frozen=True)
class Toy(RuntimeToolchainInfo):
    """Makes files of the sizes in SIZES; refuses `small` of a quantized model."""

    def refusal(self, conversion: Conversion) -> str:
        is_rounded = conversion.model.quantization and conversion.format == "small"
        return "it is rounded already" if is_rounded else ""

    def footprint(self, conversion: Conversion) -> Footprint:
        return Footprint(SIZES[conversion.format], SIZES[conversion.format] * conversion.sequence_length)

    def convert(self, ctx: Any, conversion: Conversion) -> DeviceBinaryInfo:
        out = ctx.declare_file(f"model.{conversion.format}")
        ctx.write(out, conversion.format)
        return DeviceBinaryInfo(out, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: Any) -> None:
        return None


def target(
    *,
    disk: str = "",
    ram: str = "",
    format_: str = "auto",
    quantization: dict[str, Any] | None = None,
    length: int = 64,
) -> RuleTarget:
    runner = RuleRunner()
    runner.provide(
        ":m", ModelInfo(Artifact("m", "tree"), "image_classification", {}, quantization=quantization or {})
    )
    runner.platform("drone", cpu="aarch64", os="linux", disk=disk, ram=ram)
    runner.toolchain(
        "//toolchains:runtime", Toy("toy", ("large", "small", "ternary"), named_only=frozenset({"ternary"}))
    )
    return runner.analyze(DeviceBinary, model=":m", format=format_, platform="drone", sequence_length=length)


def made(**asked: Any) -> DeviceBinaryInfo:
    found = target(**asked)
    assert found.get(DeviceRunInfo).platform.label.name == "drone"
    return found.get(DeviceBinaryInfo)


def test_auto_takes_the_first_format_that_there_is_room_for() -> None:
    assert made().format == "large"
    assert made(disk="500 B").format == "small"


def test_a_toolchain_is_told_how_long_a_pass_is() -> None:
    assert made(ram="64 KB", length=64).format == "large"
    assert made(ram="64 KB", length=65).format == "small"


def test_auto_never_takes_what_must_be_named() -> None:
    with pytest.raises(AnalysisError, match="as `small` it is too large"):
        made(disk="50 B")
    assert made(disk="50 B", format_="ternary").format == "ternary"


def test_nobody_is_told_to_take_what_suits_certain_models_only() -> None:
    with pytest.raises(AnalysisError, match="as `large` it is too large") as caught:
        made(disk="50 B", format_="large")
    assert "`small` takes the least" in (caught.value.hint or "")
    with pytest.raises(AnalysisError, match="as `ternary` it is too large") as caught:
        made(disk="5 B", format_="ternary")
    assert "`small` takes the least" in (caught.value.hint or "")


def test_a_format_that_is_too_large_is_refused_with_one_that_fits() -> None:
    with pytest.raises(AnalysisError, match="as `large` it is too large") as caught:
        made(disk="500 B", format_="large")
    assert "`small`" in (caught.value.hint or "")


def test_a_refusal_and_an_unknown_format_are_told() -> None:
    with pytest.raises(AnalysisError, match="it is rounded already") as caught:
        made(format_="small", quantization={"bits": 4})
    assert (caught.value.hint or "").startswith("`large` fits: ")
    with pytest.raises(AnalysisError, match="makes `huge`"):
        made(format_="huge")


def test_it_tells_how_it_chose() -> None:
    resolution, choice = target(disk="500 B").resolutions
    assert "chosen" not in resolution
    declared = resolution.rpartition("fits: `")[2].partition("`")[0]
    assert choice.splitlines()[1:] == [
        f"  passed over: `{declared}`, `large` is too large: disk: 1.0 kB of 500 B, 500 B too much",
        f"  chosen: `{declared}`, as `small`",
    ]
    refused = target(format_="large", quantization={"bits": 4}).resolutions[1]
    assert refused.splitlines()[1:] == [f"  chosen: `{declared}`, as `large`"]
