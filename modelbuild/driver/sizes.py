"""Sizes of models and device binaries on a platform, from analysis alone: nothing is built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelbuild.analysis.analyze import AnalyzedTarget, analyze
from modelbuild.architecture import kv_cache_bytes, parameter_count
from modelbuild.budget import over_budget
from modelbuild.checkpoint import checkpoint_bytes
from modelbuild.configuration.configure import configure
from modelbuild.configuration.configured_target import ConfiguredKey, ConfiguredTarget, ConfiguredTargetGraph
from modelbuild.configuration.toolchain_resolution import Resolution, resolve
from modelbuild.driver.request import BuildRequest
from modelbuild.errors import AnalysisError, ModelbuildError
from modelbuild.label import Label, parse_label
from modelbuild.loading.build_options import HOST_PLATFORM
from modelbuild.loading.load import load_graph
from modelbuild.loading.package import TargetGraph
from modelbuild.loading.workspace import open_workspace
from modelbuild.platform import PlatformInfo
from modelbuild.provider import DeviceBinaryInfo, ModelInfo
from modelbuild.rules.device_binary.choice import AUTO, DEFAULT_TYPE
from modelbuild.runtime_toolchain import DEFAULT_LENGTH, Conversion, Footprint, RuntimeToolchainInfo
from modelbuild.toolchain import DeclaredToolchainInfo

_DEVICE_BINARY = "device_binary"


@dataclass(frozen=True, slots=True)
class FormatSize:
    """A format that a toolchain of the platform makes. refusal: why not of this model; then no footprint.

    excess: what the platform has no room for; empty when it fits. only_by_name: it is for models of a certain
    kind, and nobody gets it without asking.
    """

    format: str
    runtime: str
    toolchain: Label
    refusal: str = ""
    footprint: Footprint | None = None
    excess: tuple[str, ...] = ()
    only_by_name: bool = False

    @property
    def fits(self) -> bool:
        """Whether the device can hold and run it."""
        return self.footprint is not None and not self.excess


@dataclass(frozen=True, slots=True)
class TargetSize:
    """What a target takes on a platform. model: whose weights they are, the target itself for a model.

    parameters: how many. checkpoint: bytes of its safetensors files. kv_cache: bytes in float16 at the
    platform's context length; 0 when it states none. made: the format that a device binary is made in; empty
    for a model, and when no format can be had. formats: in the toolchains' order.
    """

    label: Label
    model: Label
    info: ModelInfo = field(repr=False)
    platform: PlatformInfo
    parameters: int
    checkpoint: int
    kv_cache: int
    made: str
    is_binary: bool
    formats: tuple[FormatSize, ...]
    resolution: Resolution


@dataclass(frozen=True, slots=True)
class _Subject:
    """What was asked about. asked: its format, `auto` for the first that fits, empty for a model.

    sequence_length: tokens of one pass.
    """

    label: Label
    model: Label
    asked: str
    platform: Label
    toolchain_type: Label
    sequence_length: int = DEFAULT_LENGTH


def sizes(request: BuildRequest) -> tuple[TargetSize, ...]:
    """Sizes of the models and device binaries that the request names; other targets are left out.

    A platform that the request states goes before the one that a device binary names.
    Raises LoadError and AnalysisError.
    """
    stated = request.options.platform
    platform = stated or request.options.default_platform or HOST_PLATFORM
    request = replace(request, options=replace(request.options, platform=platform))
    targets = _load(request, request.patterns)
    assert targets.roots is not None  # A platform was asked for.
    subjects = list(_subjects(targets, own_platforms=not stated))
    tools = _Tools(request, targets, subjects)
    found = []
    for place in dict.fromkeys(subject.platform for subject in subjects):
        here = [subject for subject in subjects if subject.platform == place]
        analyzed = _analyze(targets, [subject.model for subject in here], place)
        for subject in here:
            target = targets.targets[subject.label]
            try:
                found.append(_size(subject, analyzed[subject.model], tools))
            except ModelbuildError as error:
                raise error.located(target.location, target.source_line()) from None
    order = {subject.label: index for index, subject in enumerate(subjects)}
    return tuple(sorted(found, key=lambda size: order[size.label]))


def _load(request: BuildRequest, patterns: Sequence[str]) -> TargetGraph:
    return load_graph(
        open_workspace(str(request.root)),
        patterns,
        working_package=request.working_package,
        options=request.options,
    )


def _analyze(targets: TargetGraph, labels: Sequence[Label], platform: Label) -> dict[Label, AnalyzedTarget]:
    """What these targets provide on a platform, and nothing but what they need is analysed."""
    assert targets.roots is not None
    wanted = tuple(dict.fromkeys(labels))
    part = replace(
        targets,
        requested=wanted,
        named=frozenset(wanted),
        roots=replace(targets.roots, platform=platform),
    )
    return dict(analyze(part).requested)


def _subjects(targets: TargetGraph, *, own_platforms: bool) -> Iterator[_Subject]:
    assert targets.roots is not None
    configured = configure(targets)
    by_key = {each.key: each for each in configured.order}
    stated = targets.roots.platform
    others = []
    rest_on_binaries = _resting_on_binaries(configured)
    for label, key in configured.requested:
        target = _meant(by_key, key)
        if target is None or target.key in rest_on_binaries:
            continue
        if target.target.rule != _DEVICE_BINARY:
            others.append(label)
            continue
        attributes, own = target.attributes, target.platform
        yield _Subject(
            label,
            _label(attributes["model"], target),
            str(attributes.get("format", AUTO)),
            own.label if own_platforms and own is not None else stated,
            _label(attributes.get("toolchain_type", DEFAULT_TYPE), target),
            int(attributes.get("sequence_length", DEFAULT_LENGTH)),
        )
    for label, analyzed in _analyze(targets, others, stated).items():
        asked, model = "", label
        binary = analyzed.providers.get(DeviceBinaryInfo)
        if isinstance(binary, DeviceBinaryInfo):  # Of a rule that makes one format, such as `gguf`.
            target = by_key[next(key for each, key in configured.requested if each == label)]
            if "model" not in target.attributes:
                continue
            asked, model = binary.format, _label(target.attributes["model"], target)
        elif ModelInfo not in analyzed.providers:
            continue
        yield _Subject(label, model, asked, stated, parse_label(DEFAULT_TYPE))


def _resting_on_binaries(configured: ConfiguredTargetGraph) -> frozenset[ConfiguredKey]:
    """Targets that need a device binary: no model does, and one that is too large cannot be analysed."""
    found: dict[ConfiguredKey, str] = {}
    for each in configured.order:
        needed = [*each.dependencies.values(), *each.variants.values()]
        if each.target.rule == _DEVICE_BINARY or any(key in found for key in needed):
            found[each.key] = each.target.rule
    return frozenset(key for key, rule in found.items() if rule not in (_DEVICE_BINARY, "alias"))


def _meant(by_key: dict[ConfiguredKey, ConfiguredTarget], key: ConfiguredKey) -> ConfiguredTarget | None:
    """The target, aliases followed; None for a file."""
    target = by_key.get(key)
    while target is not None and target.target.rule == "alias":
        target = by_key.get(next(iter(target.dependencies.values())))
    return target


def _label(text: Any, target: ConfiguredTarget) -> Label:
    return parse_label(str(text), target.target.label.package, target.target.label.repository)


class _Tools:
    """Platforms, and the registered toolchains."""

    def __init__(self, request: BuildRequest, targets: TargetGraph, subjects: Sequence[_Subject]) -> None:
        assert targets.roots is not None
        roots = targets.roots
        platforms = [roots.host, *(subject.platform for subject in subjects)]
        labels = list(dict.fromkeys([*roots.toolchains, *platforms]))
        loaded = _load(request, [str(label) for label in labels])
        analyzed = _analyze(loaded, labels, roots.host)
        declared = [analyzed[label].providers.get(DeclaredToolchainInfo) for label in roots.toolchains]
        self._declared = [each for each in declared if isinstance(each, DeclaredToolchainInfo)]
        self._platforms: dict[Label, PlatformInfo] = {}
        for label in platforms:
            info = analyzed[label].providers.get(PlatformInfo)
            if not isinstance(info, PlatformInfo):
                raise AnalysisError(f"`{label}` is no platform")
            self._platforms[label] = info
        self._host = self._platforms[roots.host]

    def platform(self, label: Label) -> PlatformInfo:
        """A platform that a subject is for."""
        return self._platforms[label]

    def resolution(self, toolchain_type: Label, platform: PlatformInfo) -> Resolution:
        """The toolchains that fit, the preferred ones first."""
        return resolve(toolchain_type, platform, self._host, self._declared)


def _size(subject: _Subject, model: AnalyzedTarget, tools: _Tools) -> TargetSize:
    info = model.providers.get(ModelInfo)
    if not isinstance(info, ModelInfo):
        raise AnalysisError(f"`{subject.model}` is no model")
    platform = tools.platform(subject.platform)
    resolution = tools.resolution(subject.toolchain_type, platform)
    made = subject.asked
    conversion = Conversion(info, made, platform, sequence_length=subject.sequence_length)
    formats = tuple(_formats(resolution, conversion))
    if made == AUTO:
        made = next((each.format for each in formats if each.fits and not each.only_by_name), "")
    return TargetSize(
        subject.label,
        model.label,
        info,
        platform,
        parameter_count(info.architecture),
        checkpoint_bytes(info),
        kv_cache_bytes(info.architecture, platform.budget.context_length or 0),
        made,
        bool(subject.asked),
        formats,
        resolution,
    )


def _formats(resolution: Resolution, conversion: Conversion) -> Iterator[FormatSize]:
    for declared in resolution.accepted:
        info = declared.providers.get(RuntimeToolchainInfo)
        if not isinstance(info, RuntimeToolchainInfo):
            raise AnalysisError(f"`{declared.implementation}` provides no RuntimeToolchainInfo")
        for format_ in info.formats:
            asked = replace(conversion, format=format_)
            refusal = info.refusal(asked)
            if refusal:
                yield FormatSize(format_, info.runtime, declared.label, refusal)
                continue
            footprint = info.footprint(asked)
            excess = over_budget(footprint, asked.platform.budget)
            yield FormatSize(
                format_,
                info.runtime,
                declared.label,
                "",
                footprint,
                excess,
                only_by_name=format_ in info.named_only,
            )
