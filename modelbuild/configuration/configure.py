"""configure(): chooses platforms, branches of selects and toolchains; nothing is left to choose after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from modelbuild.configuration.configured_target import ConfiguredKey, ConfiguredTarget, ConfiguredTargetGraph
from modelbuild.configuration.sensitivity import has_own_platform, platform_sensitive
from modelbuild.configuration.static_targets import StaticTargets
from modelbuild.configuration.toolchain_resolution import first_missing
from modelbuild.errors import AnalysisError, LoadError, ModelbuildError
from modelbuild.kept_errors import KeptErrors
from modelbuild.label import Label, parse_label
from modelbuild.loading.dependencies import LoadingContext, dependencies_of
from modelbuild.loading.package import Target, TargetGraph, dependency_cycle
from modelbuild.loading.select import Condition, Select, choose, resolve_select, resolve_value
from modelbuild.platform import ConfigSettingInfo, ConstraintValueInfo, PlatformInfo
from modelbuild.rule import Rule


def configure(targets: TargetGraph, errors: KeptErrors | None = None) -> ConfiguredTargetGraph:
    """Configure what was requested and all it needs. Raises AnalysisError and LoadError with their place.

    errors: takes those that configuration goes on after, without what has them and what needs that.
    """
    return _Configuration(targets, errors or KeptErrors()).graph()


@dataclass(frozen=True, slots=True)
class _Frame:
    """A target that waits for what it depends on."""

    configured: ConfiguredTarget
    waiting: list[ConfiguredKey] = field(default_factory=list)


class _Configuration:
    """One call of configure."""

    def __init__(self, targets: TargetGraph, errors: KeptErrors) -> None:
        self._targets = targets
        self._errors = errors
        self._failed: set[ConfiguredKey] = set()
        self._sensitive = platform_sensitive(targets)
        self._static = StaticTargets(targets, self._sensitive)
        self._platforms: dict[Label, PlatformInfo] = {}
        self._done: dict[ConfiguredKey, ConfiguredTarget] = {}
        self._order: list[ConfiguredTarget] = []
        self._active: set[ConfiguredKey] = set()
        roots = targets.roots
        self._top = self._platform(roots.platform) if roots else None
        self._host = self._platform(roots.host) if roots else None
        self._defines = dict(roots.defines) if roots else {}

    def graph(self) -> ConfiguredTargetGraph:
        """Everything, dependencies first."""
        requested: list[tuple[Label, ConfiguredKey]] = []
        skipped: list[tuple[Label, str]] = []
        unbuildable: list[Label] = []
        for label in self._targets.requested:
            key = self._key(label, self._top)
            self._visit(key)
            configured = self._of(key)
            if self._owner_key(key) in self._failed:
                unbuildable.append(label)
            elif configured is None or not configured.incompatible:
                requested.append((label, key))
            elif label in self._targets.named:
                self._errors.keep(_cannot_be_built(label, configured))
                unbuildable.append(label)
            else:
                skipped.append((label, configured.incompatible))
        return ConfiguredTargetGraph(
            tuple(self._order),
            tuple(requested),
            self._targets,
            self._host,
            tuple(skipped),
            tuple(unbuildable),
        )

    # The walk: iterative, since chains of ten thousand targets are no error.

    def _visit(self, key: ConfiguredKey) -> None:
        frames: list[_Frame] = []
        self._active.clear()
        self._enter(key, frames)
        while frames:
            frame = frames[-1]
            if frame.waiting:
                self._enter(frame.waiting.pop(), frames)
                continue
            frames.pop()
            if self._failed and self._rests_on_failed(frame.configured):
                self._failed.add(frame.configured.key)
                continue
            configured = self._with_incompatible_dependencies(frame.configured)
            self._done[configured.key] = configured
            self._order.append(configured)

    def _enter(self, key: ConfiguredKey, frames: list[_Frame]) -> None:
        owner = self._owner_key(key)
        if owner is None or owner in self._done or owner in self._failed:
            return
        target = self._targets.targets[owner[0]]
        try:
            if owner in self._active:
                raise self._cycle(owner, frames)
            self._active.add(owner)
            configured = self._configured(target, owner)
        except ModelbuildError as error:
            self._failed.add(owner)
            self._errors.keep(error.located(target.location, target.source_line()))
            return
        frames.append(_Frame(configured, configured.needed[::-1] if not configured.incompatible else []))

    def _cycle(self, key: ConfiguredKey, frames: Sequence[_Frame]) -> ModelbuildError:
        """What waits in `frames` waits for itself: through a branch or a toolchain, else loading saw it."""
        keys = [frame.configured.key for frame in frames]
        cycle = [frame.configured for frame in frames[keys.index(key) :]]
        following = [*(each.key for each in cycle[1:]), key]
        for each, after in zip(cycle, following, strict=True):
            if after in map(self._owner_key, each.toolchains):
                return AnalysisError(f"`{key[0]}` needs a toolchain that is made with its help")
        return dependency_cycle([each.target for each in cycle])

    def _rests_on_failed(self, configured: ConfiguredTarget) -> bool:
        """Whether an error took away the target or something that it needs."""
        keys = (configured.key, *configured.needed)
        return any(self._owner_key(key) in self._failed for key in keys)

    def _with_incompatible_dependencies(self, configured: ConfiguredTarget) -> ConfiguredTarget:
        if configured.incompatible:
            return configured
        for label, key in configured.dependencies.items():
            needed = self._of(key)
            if needed is not None and needed.incompatible:
                return _incompatible(configured, f"it needs `{label}`: {needed.incompatible}")
        return configured

    # One target

    def _configured(self, target: Target, key: ConfiguredKey) -> ConfiguredTarget:
        platform = self._platforms[key[1]] if key[1] else None
        if has_own_platform(target):
            platform = self._own_platform(target, platform)
        attributes = target.attributes
        dependencies: Sequence[Label] = target.dependencies
        rule = target.instance
        if rule is None:
            attributes = resolve_select(attributes, lambda select: self._branch(target, select, platform))
            rule = _parsed(target, attributes)
            dependencies = [label for labels in dependencies_of(rule).values() for label in labels]
        self._check_branches(target, dependencies)
        links = {label: self._key(label, platform) for label in dependencies}
        links |= self._exec_links(target, rule)
        variants, links = self._split(target, rule, links)
        configured = ConfiguredTarget(
            target,
            platform,
            attributes,
            links,
            variants,
            self._toolchains(target),
            prefix=self._prefix(key[1]),
            key=key,
        )
        self._check_host(target, rule)
        if platform is not None and target.rule_class.is_skippable:
            values = [
                self._static.info(label, ConstraintValueInfo, target.label, "constraint value")
                for label in dependencies_of(rule).get("target_compatible_with", ())
            ]
            missing = first_missing(values, platform)
            if missing:
                return _incompatible(configured, f"it {missing}")
        return configured

    def _check_branches(self, target: Target, dependencies: Sequence[Label]) -> None:
        """A branch that is taken has to lead somewhere; loading has seen where it does not."""
        known = self._targets.branch_errors
        for label in dependencies if known else ():
            if (target.label, label) in known:
                raise known[target.label, label]

    def _check_host(self, target: Target, rule: Rule) -> None:
        """A toolchain for other machines is not chosen; any other target for them cannot be had at all."""
        labels = dependencies_of(rule).get("exec_compatible_with", ())
        if not labels or not target.rule_class.is_skippable or self._host is None:
            return
        values = [
            self._static.info(label, ConstraintValueInfo, target.label, "constraint value")
            for label in labels
        ]
        missing = first_missing(values, self._host)
        if missing:
            raise AnalysisError(
                f"`{target.label}` cannot be built on this machine",
                notes=(f"`exec_compatible_with`: it {missing}",),
            )

    def _branch(self, target: Target, select: Select, platform: PlatformInfo | None) -> str:
        try:
            return choose(select, lambda text: self._condition(target, text, platform))
        except LoadError as error:
            if platform is not None:
                error.notes = (*error.notes, f"target platform {platform.described()}")
            raise

    def _condition(self, target: Target, text: str, platform: PlatformInfo | None) -> Condition:
        assert platform is not None  # A target with a condition is sensitive.
        written = parse_label(text, target.label.package, target.label.repository)
        label = self._behind_aliases(written, platform)
        info = self._static.info(label, ConfigSettingInfo, target.label, "condition of a `select`")
        holds = all(platform.has(value) for value in info.constraints) and all(
            self._defines.get(name) == value for name, value in info.defines
        )
        return Condition(holds, info.requirements)

    def _behind_aliases(self, label: Label, platform: PlatformInfo) -> Label:
        """The condition that an alias means on this platform: its `actual` may be a `select`, too."""
        alias = self._targets.targets.get(label)
        if alias is None or alias.rule != "alias" or label not in self._sensitive:
            return label
        chosen = resolve_value(
            alias.attributes["actual"], lambda select: self._branch(alias, select, platform)
        )
        actual = parse_label(str(chosen), alias.label.package, alias.label.repository)
        return self._behind_aliases(actual, platform)

    def _exec_links(self, target: Target, rule: Rule) -> dict[Label, ConfiguredKey]:
        apart = target.rule_class.exec_attributes
        if not apart:
            return {}
        found = dependencies_of(rule)
        return {label: self._key(label, self._host) for name in apart for label in found.get(name, ())}

    def _split(
        self, target: Target, rule: Rule, links: dict[Label, ConfiguredKey]
    ) -> tuple[dict[tuple[Label, Label], ConfiguredKey], dict[Label, ConfiguredKey]]:
        """Links of attributes that are built for each platform of a list; taken out of `links`."""
        if not target.rule_class.split_attributes:
            return {}, links
        found = dependencies_of(rule)
        labels = [label for name in target.rule_class.split_attributes for label in found.get(name, ())]
        platforms = [
            self._platform(label, target.label)
            for label in found.get(target.rule_class.platform_attribute, ())
        ]
        variants = {
            (label, platform.label): self._key(label, platform) for label in labels for platform in platforms
        }
        return variants, {label: key for label, key in links.items() if label not in labels}

    def _own_platform(self, target: Target, inherited: PlatformInfo | None) -> PlatformInfo | None:
        written = target.attributes[target.rule_class.platform_attribute]
        if not isinstance(written, str):
            return inherited
        label = parse_label(written, target.label.package, target.label.repository)
        return self._platform(label, target.label)

    def _toolchains(self, target: Target) -> tuple[ConfiguredKey, ...]:
        if not target.toolchain_types or self._targets.roots is None:
            return ()
        return tuple(self._key(label, self._host) for label in self._targets.roots.toolchains)

    # Keys and platforms

    def _key(self, label: Label, platform: PlatformInfo | None) -> ConfiguredKey:
        owner = self._targets.generated.get(label, label)
        return (label, platform.label if platform and owner in self._sensitive else None)

    def _owner_key(self, key: ConfiguredKey) -> ConfiguredKey | None:
        """The key of the target that `key` names or that makes the file it names; None for a source file."""
        owner = self._targets.owner(key[0])
        return (owner.label, key[1]) if owner else None

    def _of(self, key: ConfiguredKey) -> ConfiguredTarget | None:
        owner = self._owner_key(key)
        return self._done.get(owner) if owner else None

    def _platform(self, label: Label, user: Label | None = None) -> PlatformInfo:
        info = self._static.info(label, PlatformInfo, user or label, "platform")
        self._platforms[info.label] = info
        return info

    def _prefix(self, platform: Label | None) -> str:
        """Outputs for the platform that a plain build takes lie where people look; those for others apart."""
        roots = self._targets.roots
        if platform is None or roots is None or platform == self._platform(roots.default_platform).label:
            return ""
        repository = f"{platform.repository}/" if platform.repository else ""
        return f"@{repository}{platform.package}/{platform.name}/"


def _parsed(target: Target, attributes: Mapping[str, Any]) -> Rule:
    """The rule with labels that are parsed and lead nowhere yet; loading has validated every branch."""
    context = LoadingContext(target.label.package, target.label.repository)
    try:
        return target.rule_class.model_validate(attributes, context=context)
    except ValidationError as error:
        raise LoadError(f"`{target.label}` has wrong attributes on this platform: {error}") from None


def _incompatible(configured: ConfiguredTarget, reason: str) -> ConfiguredTarget:
    return ConfiguredTarget(
        configured.target,
        configured.platform,
        configured.attributes,
        configured.dependencies,
        configured.variants,
        configured.toolchains,
        reason,
        configured.prefix,
        configured.key,
    )


def _cannot_be_built(label: Label, configured: ConfiguredTarget) -> AnalysisError:
    """The error for an incompatible target that was asked for by its name."""
    target = configured.target
    where = f" for `{configured.platform.label}`" if configured.platform else ""
    return AnalysisError(
        f"`{label}` cannot be built{where}",
        location=target.location,
        source_line=target.source_line(),
        notes=(configured.incompatible,),
        hint="`--platform LABEL` builds for another platform; a pattern such as `//...` skips it",
    )
