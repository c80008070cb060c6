"""RuleRunner holds rules to what a build holds them to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modelbuild.api import (
    LOCAL,
    AnalysisError,
    Artifact,
    Context,
    Conversion,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    DeviceRunInfo,
    Footprint,
    ModelInfo,
    PlatformInfo,
    Provider,
    PythonTool,
    Rule,
    Runner,
    RuntimeToolchainInfo,
    parse_label,
)
from modelbuild.errors import LoadError
from modelbuild.testing import RuleRunner

TYPE = "//toolchains:runtime"
MODEL = ModelInfo(Artifact("model", "tree"), "image_classification", {})


@dataclass(frozen=True)
class Mine(RuntimeToolchainInfo):
    size: int = 100
    makes: bool = True

    def refusal(self, conversion: Conversion) -> str:
        return "big-endian" if conversion.platform.cpu == "s390x" else ""

    def footprint(self, conversion: Conversion) -> Footprint:
        return Footprint(self.size, self.size)

    def convert(self, ctx: Context, conversion: Conversion) -> DeviceBinaryInfo:
        out = ctx.declare_file(f"{conversion.prefix}model.bin")
        if self.makes:
            ctx.run(
                tool=PythonTool(Path("/convert_tool.py")),
                mnemonic="Convert",
                inputs={"model": conversion.model.weights},
                outputs={"binary": out},
                params={"format": conversion.format},
            )
        return DeviceBinaryInfo(out, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        return None


class Reader(Rule):
    """Reads whatever it is told to, declared or not."""

    platform_attribute: ClassVar[str] = "platform"
    platform: Dep[PlatformInfo] | None = None

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        out = ctx.declare_file("out")
        ctx.write(out, str(ctx.platform.label))
        return [DefaultInfo((out,))]


class OpenReader(Reader):
    needs_platform: ClassVar[bool] = True


class Chooser(Rule):
    declared: str = TYPE
    asked: str = TYPE

    @classmethod
    def toolchain_types(cls, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        return (attributes.get("declared", TYPE),)

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        info = ctx.toolchain(parse_label(self.asked)).providers[RuntimeToolchainInfo]
        assert isinstance(info, RuntimeToolchainInfo)
        return [DefaultInfo(), info]


class Forgetful(Rule):
    def analyze(self, ctx: Context) -> Sequence[Provider]:
        return [DefaultInfo((ctx.declare_file("out"),))]


class Each(Rule):
    platform_attribute: ClassVar[str] = "platforms"
    split_attributes: ClassVar[frozenset[str]] = frozenset({"models"})
    models: list[Dep[ModelInfo]] = []
    others: list[Dep[ModelInfo]] = []
    platforms: list[Dep[PlatformInfo]]

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        out = ctx.declare_file("out")
        found = [
            each if isinstance(each := ctx.under(model, platform.info), str) else each.rule
            for model in (*self.models, *self.others)
            for platform in self.platforms
        ]
        ctx.write(out, ", ".join(found))
        return [DefaultInfo((out,))]


def runner(**toolchain: Any) -> RuleRunner:
    made = RuleRunner()
    made.provide(":model", MODEL)
    made.platform("drone", cpu="arm64", os="linux", ram="1 KB")
    made.platform("mainframe", cpu="s390x", os="linux")
    made.toolchain(TYPE, Mine("mine", ("mine:fp32",), **toolchain), name="mine")
    return made


def test_a_platform_is_what_the_rule_platform_makes() -> None:
    device = RuleRunner().platform("//devices:drone", cpu="arm64", os="linux", ram="512 MiB", disk="2 GB")
    assert str(device.label) == "//devices:drone"
    assert (device.cpu, device.os) == ("aarch64", "linux")  # As in Bazel, arm64 is an alias.
    assert (device.budget.ram, device.budget.disk) == (512 << 20, 2 * 10**9)
    assert device.runner is None
    emulated = Runner("qemu-user", "aarch64")
    assert RuleRunner().platform("d", cpu="aarch64", runner=emulated).runner == emulated


def test_this_machine_is_there() -> None:
    target = RuleRunner().analyze(OpenReader, platform="@platforms//host:host")
    assert target.action.params["content"] == "@platforms//host:host"
    host = RuleRunner()
    assert host.platform("p", cpu=_host(host).cpu, os=_host(host).os).runner == LOCAL


def _host(runner: RuleRunner) -> PlatformInfo:
    runner.analyze(OpenReader, platform="@platforms//host:host")
    info = runner.targets[parse_label("@platforms//host:host")].providers[PlatformInfo]
    assert isinstance(info, PlatformInfo)
    return info


def test_a_misspelt_cpu_or_size_is_an_error() -> None:
    with pytest.raises(LoadError, match="no constraint value `@platforms//cpu:aarch46`") as caught:
        RuleRunner().platform("drone", cpu="aarch46")
    assert "`aarch64`" in "".join((*caught.value.notes, caught.value.hint or ""))
    with pytest.raises(AnalysisError, match="`ram` is `much`"):
        RuleRunner().platform("drone", ram="much")


def test_own_constraints_have_defaults() -> None:
    made = RuleRunner()
    made.constraint_setting("//hw:accelerator", "none", "npu", default="none")
    made.platform("plain", os="linux")
    made.platform("fast", os="linux", constraint_values=["//hw:npu"])
    made.toolchain(TYPE, Mine("npu", ("npu:int8",)), target_compatible_with=["//hw:npu"])
    made.toolchain(TYPE, Mine("any", ("any:fp32",)))
    for platform, runtime in (("plain", "any"), ("fast", "npu")):
        made.build_for(platform)
        assert made.analyze(Chooser, name=platform).get(RuntimeToolchainInfo).runtime == runtime


def test_the_platform_is_told_only_to_rules_that_say_so() -> None:
    made = runner()
    with pytest.raises(AnalysisError, match="reads the platform without `needs_platform`"):
        made.analyze(Reader)
    assert made.analyze(OpenReader, name="a").action.params["content"] == "@platforms//host:host"
    made.build_for(":drone")
    assert made.analyze(OpenReader, name="b").action.params["content"] == "//pkg:drone"
    named = made.analyze(OpenReader, name="c", platform=":mainframe")
    assert named.action.params["content"] == "//pkg:mainframe"
    with pytest.raises(AnalysisError, match="`//pkg:model` is a fake and provides no PlatformInfo"):
        made.build_for(":model")


def test_a_toolchain_type_that_is_not_declared_is_not_there() -> None:
    made = runner()
    made.analyze(Chooser, name="a")
    with pytest.raises(AnalysisError, match="has no toolchain type `//toolchains:runtime`"):
        made.analyze(Chooser, name="b", declared="//toolchains:compiler")


def test_the_first_registered_toolchain_that_fits_is_taken() -> None:
    made = RuleRunner()
    made.platform("drone", cpu="aarch64", os="linux")
    made.build_for(":drone")
    made.toolchain(TYPE, Mine("x86", ("x:a",)), name="x86", target_compatible_with=["@platforms//cpu:x86_64"])
    with pytest.raises(AnalysisError, match=r"no toolchain for `//pkg:a` \(needs `//toolchains:runtime`\)"):
        made.analyze(Chooser, name="a")
    made.toolchain(TYPE, Mine("first", ("y:a",)), name="first")
    made.toolchain(TYPE, Mine("second", ("y:a",)), name="second")
    target = made.analyze(Chooser, name="b")
    assert target.get(RuntimeToolchainInfo).runtime == "first"
    assert "rejected `//pkg:x86`: its target must have `@platforms//cpu:x86_64`" in target.resolutions[0]
    assert "fits too: `//pkg:second`" in target.resolutions[0]


def test_toolchain_targets_are_registered_as_they_are() -> None:
    made = RuleRunner()
    made.analyze("toolchain_type", name="kind", no_match_error="there is none")
    with pytest.raises(AnalysisError) as caught:
        made.analyze(Chooser, name="a", declared="//pkg:kind", asked="//pkg:kind")
    assert caught.value.hint == "there is none"
    made.provide(":mine", Mine("mine", ("mine:a",)))
    made.analyze("toolchain", name="here", toolchain=":mine", toolchain_type=":kind")
    made.register(":here")
    made.analyze(Chooser, name="b", declared="//pkg:kind", asked="//pkg:kind")
    with pytest.raises(AnalysisError, match="provides no DeclaredToolchainInfo"):
        made.register(":mine")


def test_device_binary_takes_the_toolchain_and_checks_the_budget() -> None:
    made = runner()
    target = made.analyze("device_binary", name="fits", model=":model", platform=":drone")
    assert target.named("Convert").params == {"format": "mine:fp32"}
    assert target.get(DeviceRunInfo).platform.label.name == "drone"
    assert target.get(DeviceRunInfo).model == MODEL
    with pytest.raises(AnalysisError, match="big-endian"):
        made.analyze("device_binary", name="refused", model=":model", platform=":mainframe")
    with pytest.raises(AnalysisError, match="too large for `//pkg:drone`"):
        runner(size=2000).analyze("device_binary", name="large", model=":model", platform=":drone")


def test_a_conversion_alone() -> None:
    made = runner()
    drone = made.platform("other", cpu="aarch64")
    target = made.convert(Mine("mine", ("mine:a",)), Conversion(MODEL, "mine:a", drone, "x/"))
    assert target.get(DeviceBinaryInfo) == DeviceBinaryInfo(
        Artifact("pkg/binary/x/model.bin", "file"), "mine:a", "mine", drone.label
    )
    assert target.action.inputs == {"in/model": MODEL.weights}
    with pytest.raises(AnalysisError, match="`//pkg:binary` cannot be had as `mine:a`: big-endian"):
        made.convert(
            Mine("mine", ("mine:a",)), Conversion(MODEL, "mine:a", made.platform("old", cpu="s390x"))
        )
    with pytest.raises(AnalysisError, match=r"declares the output `modelbuild-out/pkg/binary/model\.bin`"):
        made.convert(Mine("mine", ("mine:a",), makes=False), Conversion(MODEL, "mine:a", drone))


def test_an_output_that_nothing_makes_is_an_error() -> None:
    with pytest.raises(AnalysisError, match="none of its actions makes it"):
        RuleRunner().analyze(Forgetful)


def test_what_cannot_be_built_for_a_platform_is_refused() -> None:
    made = runner()
    made.build_for(":drone")
    with pytest.raises(AnalysisError, match="cannot be built for `//pkg:drone`"):
        made.analyze("filegroup", name="f", target_compatible_with=["@platforms//os:ios"])


def test_attributes_that_are_split_over_platforms() -> None:
    made = runner()
    made.incompatible(":model", ":mainframe", "it is too old")
    target = made.analyze(Each, name="a", models=[":model"], platforms=[":drone", ":mainframe"])
    assert target.action.params["content"] == "fake, it is too old"
    with pytest.raises(AnalysisError, match="is in no attribute that is split"):
        made.analyze(Each, name="b", others=[":model"], platforms=[":drone"])


def test_a_provider_is_found_by_its_base() -> None:
    made = RuleRunner()
    made.provide(":t", Mine("mine", ("a:b",)))
    assert RuntimeToolchainInfo in made.targets[parse_label("//pkg:t")].providers


def test_a_rule_that_there_is_not() -> None:
    with pytest.raises(LoadError, match="no built-in rule `device_binry`") as caught:
        RuleRunner().analyze("device_binry")
    assert "`device_binary`" in (caught.value.hint or "")
