"""RuleRunner: analyses single rules against dependencies, platforms and toolchains that a test states."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from modelbuild.analysis.analyze import GENERATED_FILE, SOURCE_FILE, AnalyzedTarget
from modelbuild.analysis.context import Context, Surroundings
from modelbuild.analysis.rule_call import by_class, check_made
from modelbuild.artifact import Artifact
from modelbuild.attribute import ResolvedTarget
from modelbuild.configuration.toolchain_resolution import first_missing
from modelbuild.errors import AnalysisError, LoadError, Location
from modelbuild.kept_errors import combined
from modelbuild.label import Label, parse_label
from modelbuild.loading.attribute_error import attribute_errors
from modelbuild.loading.build_options import HOST_PLATFORM
from modelbuild.loading.dependencies import dependencies_of
from modelbuild.loading.suggestion import did_you_mean
from modelbuild.platform import PlatformInfo
from modelbuild.provider import DefaultInfo, DeviceBinaryInfo, Provider, RunnerInfo
from modelbuild.rule import Rule, rule_name
from modelbuild.rules import BUILTIN_RULES
from modelbuild.runner import Runner
from modelbuild.runtime_toolchain import Conversion, RuntimeToolchainInfo
from modelbuild.testing.platform_values import REPOSITORY, platform_value
from modelbuild.testing.rule_target import RuleTarget
from modelbuild.toolchain import DeclaredToolchainInfo, ToolchainTypeInfo

P = TypeVar("P", bound=Provider)


@dataclass
class RuleRunner:
    """Analyses single rules. package: of the targets it makes, and where relative labels start.

    As in a build, a rule is told of platforms and toolchains only what it declares: one that reads
    `ctx.platform` without `needs_platform`, or asks for a toolchain type that it does not name, fails.
    `@platforms` is there, and `@platforms//host`, this machine, is what targets are built for unless
    `build_for` says otherwise.
    """

    package: str = "pkg"
    targets: dict[Label, AnalyzedTarget] = field(default_factory=dict)
    _built_for: str = HOST_PLATFORM
    _registered: list[Label] = field(default_factory=list)
    _impossible: dict[tuple[Label, Label], str] = field(default_factory=dict)

    # What the rule finds

    def provide(self, label: str, *providers: Provider, rule: str = "fake") -> None:
        """Let `label` be a target that provides `providers`."""
        parsed = parse_label(label, self.package)
        self.targets[parsed] = AnalyzedTarget(parsed, rule, by_class(providers))

    def source(self, label: str) -> Artifact:
        """Let `label` be a source file."""
        parsed = parse_label(label, self.package)
        artifact = Artifact(parsed.path, "source")
        self.targets[parsed] = AnalyzedTarget(parsed, SOURCE_FILE, {DefaultInfo: DefaultInfo((artifact,))})
        return artifact

    def platform(
        self,
        label: str,
        *,
        cpu: str = "",
        os: str = "",
        constraint_values: Sequence[str] = (),
        disk: str = "",
        ram: str = "",
        context_length: int | None = None,
        latency_ms: float | None = None,
        runner: Runner | None = None,
        not_run: str = "",
    ) -> PlatformInfo:
        """Let `label` be a device, as the rule `platform` makes one.

        cpu, os: names of values in `@platforms`. constraint_values: labels of others. disk, ram: `512 MiB`.
        runner: how its programs run here; needless where this machine is such a device.
        Raises LoadError for a value that there is not.
        """
        values = [f"@platforms//{setting}:{name}" for setting, name in (("cpu", cpu), ("os", os)) if name]
        attributes: dict[str, Any] = {
            "constraint_values": [*values, *constraint_values],
            "disk": disk,
            "ram": ram,
            "context_length": context_length,
            "latency_ms": latency_ms,
            "not_run": not_run,
        }
        parsed = parse_label(label, self.package)
        if runner is not None:
            attributes["runner"] = str(parsed.sibling(f"{parsed.name}-runner"))
            self.provide(attributes["runner"], RunnerInfo(runner))
        return self._analyze(builtin_rule("platform"), parsed, attributes).get(PlatformInfo)

    def constraint_setting(self, label: str, *values: str, default: str = "") -> None:
        """Let `label` be a property that platforms differ in, and `values` the names of its values.

        default: the value of platforms that state none.
        """
        setting = parse_label(label, self.package)
        stated = {"default_constraint_value": f":{default}"} if default else {}
        self._analyze(builtin_rule("constraint_setting"), setting, stated)
        for name in (*values, *([default] if default and default not in values else ())):
            attributes = {"constraint_setting": str(setting)}
            self._analyze(builtin_rule("constraint_value"), setting.sibling(name), attributes)

    def build_for(self, platform: str) -> None:
        """Build for this platform from now on, as `--platform` says. Raises LoadError when it is none."""
        self._info(parse_label(platform, self.package), PlatformInfo)
        self._built_for = platform

    def toolchain(
        self,
        toolchain_type: str,
        *providers: Provider,
        name: str = "",
        target_compatible_with: Sequence[str] = (),
        exec_compatible_with: Sequence[str] = (),
    ) -> Label:
        """Register a toolchain that provides `providers`, behind those that are registered already.

        Of several that fit, the first is taken. target_compatible_with, exec_compatible_with: labels of
        constraint values. Returns the label of its `toolchain` target.
        """
        label = parse_label(f":{name or f'toolchain_{len(self._registered)}'}", self.package)
        implementation = label.sibling(f"{label.name}_implementation")
        self.provide(str(implementation), *providers)
        kind = parse_label(toolchain_type, self.package)
        if kind not in self.targets:
            self.provide(toolchain_type, ToolchainTypeInfo(kind))
        return self.register(
            self._analyze(
                builtin_rule("toolchain"),
                label,
                {
                    "toolchain": str(implementation),
                    "toolchain_type": toolchain_type,
                    "target_compatible_with": list(target_compatible_with),
                    "exec_compatible_with": list(exec_compatible_with),
                },
            ).label
        )

    def register(self, label: Label | str) -> Label:
        """Register a `toolchain` target that was analysed here, as `toolchains` in modelbuild.toml does."""
        parsed = label if isinstance(label, Label) else parse_label(label, self.package)
        self._info(parsed, DeclaredToolchainInfo)
        self._registered.append(parsed)
        return parsed

    def incompatible(self, label: str, platform: str, reason: str) -> None:
        """Let `label` be impossible on `platform`, for rules that split over platforms."""
        key = (parse_label(label, self.package), parse_label(platform, self.package))
        self._impossible[key] = reason

    # What it makes of that

    def analyze(self, rule: type[Rule] | str, *, name: str = "target", **attributes: Any) -> RuleTarget:
        """Declare and analyse one target; it can be a dependency of the next.

        rule: a class, or the name of a built-in rule, `device_binary`.
        Raises LoadError for wrong attributes and AnalysisError for what the rule refuses, as a build does.
        """
        found = builtin_rule(rule) if isinstance(rule, str) else rule
        return self._analyze(found, Label("", self.package, name), attributes)

    def convert(
        self, toolchain: RuntimeToolchainInfo, conversion: Conversion, *, name: str = "binary"
    ) -> RuleTarget:
        """What `toolchain` declares to make a binary, and the DeviceBinaryInfo that it returns.

        Raises AnalysisError for what the toolchain refuses.
        """
        label = Label("", self.package, name)
        if refusal := toolchain.refusal(conversion):
            raise AnalysisError(f"`{label}` cannot be had as `{conversion.format}`: {refusal}")
        context = Context(label)
        made = toolchain.convert(context, conversion)
        check_made(context)
        assert isinstance(made, DeviceBinaryInfo), f"`convert` returned {made!r}"
        outputs = {artifact for action in context.actions for artifact in action.outputs.values()}
        assert made.binary in outputs, f"no action makes the binary `{made.binary}`"
        providers = by_class([DefaultInfo((made.binary,)), made])
        self.targets[label] = AnalyzedTarget(label, "device_binary", providers)
        return RuleTarget(label, tuple(context.actions), providers)

    def _analyze(self, rule: type[Rule], label: Label, attributes: dict[str, Any]) -> RuleTarget:
        written = {"name": label.name} | {key: each for key, each in attributes.items() if each is not None}
        shown = rule_name(rule)
        place = _Place(label.package, "", self._resolve)
        try:
            instance = rule.model_validate(written, context=place)
        except ValidationError as error:
            location = Location(f"{label.package}/BUILD.models", 1)
            raise combined(attribute_errors(error, shown, rule, label.name, location, "")) from None
        surroundings = self._surroundings(rule, instance, label, written)
        context = Context(label, determinism=rule.determinism, surroundings=surroundings)
        providers = by_class(instance.analyze(context))
        check_made(context)
        self.targets[label] = AnalyzedTarget(label, shown, providers)
        for output in rule.declared_outputs(written):
            file = label.sibling(output)
            made = DefaultInfo((Artifact(file.path, "file"),))
            self.targets[file] = AnalyzedTarget(file, GENERATED_FILE, {DefaultInfo: made})
        return RuleTarget(label, tuple(context.actions), providers, context.resolutions)

    def _surroundings(
        self, rule: type[Rule], instance: Rule, label: Label, written: dict[str, Any]
    ) -> Surroundings:
        """What configuration would find out: nothing but what the rule and its attributes declare."""
        types = [parse_label(text) for text in rule.toolchain_types(written)]
        own = written.get(rule.platform_attribute) if rule.platform_attribute else None
        platform: PlatformInfo | None = None
        if isinstance(own, str):
            platform = self._info(parse_label(own, label.package), PlatformInfo)
        elif not own and (types or rule.needs_platform or _is_choosy(rule, instance)):
            platform = self._info(parse_label(self._built_for, self.package), PlatformInfo)
        if platform is not None and rule.is_skippable:
            missing = first_missing([each.info for each in instance.target_compatible_with], platform)
            if missing:
                raise AnalysisError(
                    f"`{label}` cannot be built for `{platform.label}`", notes=(f"it {missing}",)
                )
        found = dependencies_of(instance)
        apart = [each for name in rule.split_attributes for each in found.get(name, ())]
        over = [self._info(each, PlatformInfo).label for each in found.get(rule.platform_attribute, ())]
        variants = {(each, place) for each in apart for place in over}

        def variant(dependency: Label, place: Label) -> ResolvedTarget | str:
            if (dependency, place) not in variants:
                raise AnalysisError(f"`{dependency}` is in no attribute that is split for `{place}`")
            return self._impossible.get((dependency, place)) or self._resolve(dependency)

        return Surroundings(
            platform,
            self._info(parse_label(HOST_PLATFORM), PlatformInfo) if types else None,
            {each: self._type(each) for each in types},
            tuple(self._info(each, DeclaredToolchainInfo) for each in self._registered) if types else (),
            variant,
        )

    def _type(self, label: Label) -> ToolchainTypeInfo:
        """A toolchain type that the test did not state is one without a text for errors."""
        if label in self.targets:
            return self._info(label, ToolchainTypeInfo)
        return ToolchainTypeInfo(label)

    def _info(self, label: Label, provider: type[P]) -> P:
        target = self._resolve(label)
        found = target.providers.get(provider)
        if not isinstance(found, provider):
            raise AnalysisError(f"`{label}` is a {target.rule} and provides no {provider.__name__}")
        return found

    def _resolve(self, label: Label) -> ResolvedTarget:
        if label in self.targets:
            return self.targets[label]
        if label == parse_label(HOST_PLATFORM):
            self._analyze(builtin_rule("host_platform"), label, {})
            return self.targets[label]
        if label.repository == REPOSITORY:
            value = platform_value(label)
            return AnalyzedTarget(value.label, "constraint_value", {type(value): value})
        known = [str(each) for each in self.targets]
        raise LoadError(f"the test provides no `{label}`", hint=did_you_mean(str(label), known))


def builtin_rule(name: str) -> type[Rule]:
    """The class of a built-in rule. Raises LoadError when there is none of this name."""
    if name not in BUILTIN_RULES:
        raise LoadError(f"there is no built-in rule `{name}`", hint=did_you_mean(name, BUILTIN_RULES))
    module, _, class_name = BUILTIN_RULES[name].partition(":")
    found: type[Rule] = getattr(importlib.import_module(module), class_name)
    return found


def _is_choosy(rule: type[Rule], instance: Rule) -> bool:
    return bool(rule.is_skippable and instance.target_compatible_with)


@dataclass(frozen=True)
class _Place:
    """An AttributeContext."""

    package: str
    repository: str
    resolve: Callable[[Label], ResolvedTarget | None]
