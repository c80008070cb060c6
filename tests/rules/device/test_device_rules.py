"""What the device rules declare and refuse."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from modelbuild import provider
from modelbuild.api import (
    Artifact,
    Conversion,
    DatasetInfo,
    DeviceBinaryInfo,
    DeviceRunInfo,
    Label,
    ModelInfo,
    PlatformInfo,
    ProbesInfo,
    PythonTool,
    ReferenceInfo,
    Runner,
    RuntimeToolchainInfo,
    TokenizerInfo,
)
from modelbuild.errors import ModelbuildError
from modelbuild.rules.device.parity import LatencyTest, ParityTest
from modelbuild.rules.device.rule import Probes, ReferenceLogits
from modelbuild.rules.device.runner import SYSROOTS, DeviceRunner
from modelbuild.runner import LOCAL
from modelbuild.testing import RuleRunner, RuleTarget

QEMU = Runner("qemu-user", "aarch64", Path("/aarch64.sysroot"))
MODEL = ModelInfo(
    Artifact("m", "tree"), "text_generation", {}, tokenizer=TokenizerInfo(Artifact("t", "tree"), 280)
)
BINARY = DeviceBinaryInfo(Artifact("b", "file"), "mine:fp32", "mine")


@dataclass(frozen=True)
class Mine(RuntimeToolchainInfo):
    has_runtime: bool = True

    def device_tool(self, platform: PlatformInfo) -> PythonTool | None:
        return PythonTool(Path("/device_tool.py")) if self.has_runtime else None


def platform(runner: Runner | None = QEMU, not_run: str = "") -> PlatformInfo:
    return PlatformInfo(Label("", "p", "drone"), {}, runner=runner, not_run=not_run)


def bench(place: PlatformInfo | None = None, **toolchain: Any) -> RuleRunner:
    made = RuleRunner()
    tool = Mine("mine", ("mine:fp32",), **toolchain)
    asked = Conversion(MODEL, "mine:fp32", place or platform(), sequence_length=32)
    made.provide(":binary", BINARY, DeviceRunInfo(tool, asked))
    made.provide(":bare", BINARY)
    made.provide(":model", MODEL)
    made.provide(":vit", ModelInfo(Artifact("v", "tree"), "image_classification", {}))
    made.provide(":data", DatasetInfo(Artifact("d", "tree"), ("train", "eval"), "text_generation"))
    made.provide(":images", DatasetInfo(Artifact("i", "tree"), ("eval",), "image_classification"))
    made.provide(":tokenizer", TokenizerInfo(Artifact("t", "tree"), 280))
    made.provide(":probes", ProbesInfo(Artifact("q", "tree"), "text_generation", 64))
    made.provide(":other-probes", ProbesInfo(Artifact("o", "tree"), "text_generation", 64))
    made.provide(
        ":foreign-probes",
        ProbesInfo(Artifact("f", "tree"), "text_generation", 64, TokenizerInfo(Artifact("x", "tree"), 999)),
    )
    made.provide(":pictures", ProbesInfo(Artifact("r", "tree"), "image_classification"))
    return made


def actions(target: RuleTarget) -> Mapping[str, Any]:
    return {action.mnemonic: action for action in target.actions}


def test_a_parity_test_asks_the_device_and_the_parent() -> None:
    target = bench().analyze(
        ParityTest, name="parity_test", binary=":binary", parent=":model", probes=":probes", max_error=0.1
    )
    assert ParityTest.is_test
    made = actions(target)
    assert set(made) == {"Probe", "Reference", "Parity", "Verdict"}
    assert made["Probe"].runner == QEMU
    assert made["Probe"].determinism == "numeric"
    assert made["Probe"].volatile == ("out/timing",)
    assert all(made[name].runner is None for name in ("Reference", "Parity", "Verdict"))
    assert made["Verdict"].params == {"at_most": {"max_error": 0.1}, "at_least": {}}
    assert target.get(provider.TestInfo).verdict.path == "pkg/parity_test/verdict.json"


def test_on_this_machine_there_is_no_runner_in_the_key() -> None:
    target = bench(platform(LOCAL)).analyze(
        ParityTest, name="parity_test", binary=":binary", parent=":model", probes=":probes", min_top1=1.0
    )
    assert actions(target)["Probe"].runner is None


def test_reference_logits_are_shared() -> None:
    runner = bench()
    reference = runner.analyze(ReferenceLogits, name="reference", model=":model", probes=":probes")
    assert reference.get(ReferenceInfo).model == Label("", "pkg", "model")
    target = runner.analyze(
        ParityTest, name="parity_test", binary=":binary", parent=":reference", probes=":probes", max_kl=0.1
    )
    assert "Reference" not in actions(target)
    assert actions(target)["Parity"].inputs["in/reference"] == reference.get(ReferenceInfo).logits


def test_texts_and_images_have_their_tools() -> None:
    runner = bench()
    text = runner.analyze(Probes, name="a", dataset=":data", tokenizer=":tokenizer", rows=4, length=32)
    assert text.action.params == {"split": "eval", "rows": 4, "length": 32}
    assert text.get(ProbesInfo).length == 32
    images = runner.analyze(Probes, name="b", dataset=":images", rows=4)
    assert images.action.params == {"split": "eval", "rows": 4}
    assert images.get(ProbesInfo).length == 0
    for target in (text, images):
        assert isinstance(target.action.tool, PythonTool)
        assert target.action.tool.source.is_file()
    model = runner.analyze(ReferenceLogits, name="c", model=":vit", probes=":pictures").action
    assert isinstance(model.tool, PythonTool)
    assert model.tool.source.name == "image_reference_tool.py"


@pytest.mark.parametrize(
    ("rule", "attributes", "message"),
    [
        (Probes, {"dataset": ":data"}, "need the model's `tokenizer`"),
        (Probes, {"dataset": ":images", "tokenizer": ":tokenizer"}, "means nothing"),
        (Probes, {"dataset": ":images", "split": "train"}, "no split `train`"),
        (ReferenceLogits, {"model": ":vit", "probes": ":probes"}, "the model is for `image_classification`"),
        (ReferenceLogits, {"model": ":model", "probes": ":foreign-probes"}, "encoded with 999"),
        (ParityTest, {"probes": ":probes"}, "without bounds passes everything"),
        (ParityTest, {"probes": ":probes", "max_error": float("nan")}, "is no number"),
        (ParityTest, {"probes": ":pictures", "max_error": 1}, "the probes for `image_classification`"),
        (ParityTest, {"probes": ":probes", "max_error": 1, "binary": ":bare"}, "does not say what runs it"),
        (ParityTest, {"probes": ":probes", "max_error": 1, "parent": ":data"}, "is neither a model nor"),
        (ParityTest, {"probes": ":other-probes", "max_error": 1, "parent": ":ref"}, "answers other probes"),
        (LatencyTest, {"probes": ":probes", "max_ms": 5}, "times under emulation say nothing"),
    ],
)
def test_what_makes_no_sense_is_refused(rule: Any, attributes: dict[str, Any], message: str) -> None:
    runner = bench()
    runner.provide(
        ":ref",
        ReferenceInfo(Artifact("ref", "file"), Label("", "pkg", "model"), Artifact("q", "tree")),
    )
    if rule is ParityTest:
        attributes = {"binary": ":binary", "parent": ":model", **attributes}
    if rule is LatencyTest:
        attributes = {"binary": ":binary", **attributes}
    with pytest.raises(ModelbuildError, match=message):
        runner.analyze(rule, name="it_test", **attributes)


@pytest.mark.parametrize(
    ("place", "toolchain", "message"),
    [
        (platform(None, "a phone cannot be emulated here"), {}, "a phone cannot be emulated here"),
        (platform(None), {}, "names no `runner`"),
        (platform(), {"has_runtime": False}, "mine has no runtime that this project can call"),
    ],
)
def test_a_device_that_cannot_be_asked_is_refused_with_the_reason(
    place: PlatformInfo, toolchain: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelbuildError, match=message):
        bench(place, **toolchain).analyze(
            ParityTest, name="it_test", binary=":binary", parent=":model", probes=":probes", max_error=1
        )


class Fixed(Mine):
    """Takes rows of one length."""

    fixed_length: ClassVar[bool] = True


@pytest.mark.parametrize(("kind", "length"), [(Fixed, 64), (Mine, 32)])
def test_probes_of_another_length_are_refused_before_anything_is_trained(
    kind: type[Mine], length: int
) -> None:
    runner = bench()
    for name, asked in (("long", length), ("short", 32)):
        conversion = Conversion(MODEL, "mine:fp32", platform(), sequence_length=asked)
        runner.provide(f":{name}", BINARY, DeviceRunInfo(kind("mine", ("mine:fp32",)), conversion))

    def asked_with(binary: str) -> Any:
        bounds = {"parent": ":model", "probes": ":probes", "max_error": 1}
        return runner.analyze(ParityTest, name=f"{binary}_test", binary=f":{binary}", **bounds)

    assert asked_with("long").named("Probe")
    if kind is Fixed:
        with pytest.raises(ModelbuildError, match="rows of 32 tokens, and those of the probes have 64"):
            asked_with("short")
    else:
        assert asked_with("short").named("Probe")


def test_latency_is_judged_on_the_device() -> None:
    device = Runner("ssh", "aarch64", address="pi@drone")
    target = bench(platform(device)).analyze(
        LatencyTest, name="latency_test", binary=":binary", probes=":probes", max_ms=5.0
    )
    made = actions(target)
    assert made["Probe"].runner == device
    assert made["Verdict"].inputs["in/timing"] == made["Probe"].outputs["out/timing"]


def test_an_emulated_device_has_the_file_system_of_its_cpu() -> None:
    found = bench().analyze(DeviceRunner, kind="qemu-user", cpu="armv7").get(provider.RunnerInfo).runner
    assert found == Runner("qemu-user", "armv7", SYSROOTS / "armv7.sysroot")


def test_every_file_system_has_a_name() -> None:
    for path in SYSROOTS.glob("*.sysroot"):
        bench().analyze(DeviceRunner, kind="qemu-user", cpu="any", sysroot=path.stem)


def test_a_device_that_answers_has_an_address() -> None:
    for address in ("pi@drone", "drone.local:2222", "pi@[fe80::1%eth0]:22"):
        found = bench().analyze(DeviceRunner, kind="ssh", cpu="aarch64", address=address)
        assert found.get(provider.RunnerInfo).runner == Runner("ssh", "aarch64", address=address)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kind": "ssh"}, "`address` and the kind `ssh` belong together"),
        ({"kind": "local", "address": "pi@drone"}, "belong together"),
        ({"kind": "ssh", "address": "-oProxyCommand=x"}, "is no address"),
        ({"kind": "ssh", "address": "pi@drone x"}, "is no address"),
        ({"kind": "ssh", "address": "pi@drone", "sysroot": "armv7"}, "`sysroot` means nothing"),
        ({"kind": "qemu-user", "cpu": "vax"}, "there is no sysroot `vax`"),
        ({"kind": "docker"}, "kind"),
    ],
)
def test_a_runner_that_makes_no_sense_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelbuildError, match=message):
        bench().analyze(DeviceRunner, **{"cpu": "aarch64", **attributes})
