"""Analysis: rules run, actions are declared, providers flow from dependencies to dependents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modelbuild.actions.action import Action
from modelbuild.actions.graph import ActionGraph, RequestedTarget, make_graph
from modelbuild.analysis.context import Context, Surroundings, output_path
from modelbuild.analysis.rule_call import call_rule, validated
from modelbuild.artifact import Artifact
from modelbuild.attribute import ResolvedTarget
from modelbuild.configuration.configure import configure
from modelbuild.configuration.configured_target import ConfiguredKey, ConfiguredTarget, ConfiguredTargetGraph
from modelbuild.errors import AnalysisError, ModelbuildError
from modelbuild.kept_errors import KeptErrors
from modelbuild.label import Label
from modelbuild.loading.dependencies import found_dependencies
from modelbuild.loading.package import TargetGraph
from modelbuild.provider import DefaultInfo, Provider, TestInfo
from modelbuild.toolchain import DeclaredToolchainInfo, ToolchainTypeInfo

SOURCE_FILE = "source file"
GENERATED_FILE = "generated file"


@dataclass(frozen=True, slots=True)
class AnalyzedTarget:
    """A target and what it provides. validations: its own and those of all it depends on.

    label: of an alias, the target that is meant in the end.
    """

    label: Label
    rule: str
    providers: Mapping[type[Provider], Provider]
    validations: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Analysis:
    """What analysis hands on: the action graph, and every target's providers for `run` and reports.

    listings: directories of the machine that rules have listed. requested: what the requested labels lead to.
    skipped: requested by a wildcard and impossible on the platform, with the reason. errors: what analysis
    went on after. unbuildable: requested, and those errors took them away.
    """

    graph: ActionGraph
    targets: Mapping[ConfiguredKey, AnalyzedTarget]
    requested: Mapping[Label, AnalyzedTarget]
    listings: tuple[str, ...] = ()
    skipped: tuple[tuple[Label, str], ...] = ()
    errors: tuple[ModelbuildError, ...] = ()
    unbuildable: tuple[Label, ...] = ()


def analyze(
    targets: TargetGraph, tell: Callable[[str], None] = lambda _: None, *, keep_going: bool = False
) -> Analysis:
    """Configure the targets and run their rules, dependencies first. Touches no artifact.

    tell: takes how each toolchain was chosen, also for a target that is then refused. keep_going: go on after
    errors with what does not need what they are in; when that is nothing that was asked for, they are raised.
    Raises AnalysisError and LoadError, located at the BUILD line of the target that is wrong.
    """
    errors = KeptErrors(keep_going=keep_going)
    analysis = _Analyzer(configure(targets, errors), tell, errors).analysis()
    if errors.errors and not analysis.requested:
        raise errors.combined()
    return analysis


class _Analyzer:
    """One call of analyze."""

    def __init__(
        self, configured: ConfiguredTargetGraph, tell: Callable[[str], None], errors: KeptErrors
    ) -> None:
        self._configured = configured
        self._tell = tell
        self._errors = errors
        self._failed: set[ConfiguredKey] = set()
        self._targets = configured.targets
        # A file of another repository is known by its absolute path; one of the workspace by a relative one.
        self._analyzed: dict[ConfiguredKey, AnalyzedTarget] = {
            (label, None): _file(
                label, Artifact(path if label.repository else label.path, "source"), SOURCE_FILE
            )
            for label, path in self._targets.sources.items()
        }
        self._incompatible = {each.key: each.incompatible for each in configured.order if each.incompatible}
        self._actions: list[Action] = []
        self._listings: list[str] = []
        self._told: set[str] = set()
        self._declared_by: dict[str, Label] = {}
        self._folders: dict[str, ConfiguredTarget] = {}

    def analysis(self) -> Analysis:
        """Everything."""
        for configured in self._configured.order:
            if configured.incompatible:
                continue
            if self._failed and not self._failed.isdisjoint(configured.needed):
                self._take_away(configured)
                continue
            target = configured.target
            try:
                self._analyze(configured)
            except ModelbuildError as error:
                self._take_away(configured)
                self._errors.keep(error.located(target.location, target.source_line()))
        self._check_folders()
        requested = {
            label: self._analyzed[key] for label, key in self._configured.requested if key not in self._failed
        }
        shown = tuple(_requested(label, target) for label, target in requested.items())
        return Analysis(
            make_graph(self._actions, shown),
            self._analyzed,
            requested,
            tuple(dict.fromkeys(self._listings)),
            self._configured.skipped,
            self._errors.errors,
            (
                *self._configured.unbuildable,
                *(label for label, key in self._configured.requested if key in self._failed),
            ),
        )

    def _take_away(self, configured: ConfiguredTarget) -> None:
        """An error leaves nothing of the target, and nothing of what needs it."""
        label, platform = configured.key
        self._failed |= {(each, platform) for each in (label, *configured.target.outputs)}

    def _analyze(self, configured: ConfiguredTarget) -> None:
        target = configured.target
        rule = validated(target, configured.attributes, lambda label: self._resolve(configured, label))
        context = Context(
            target.label,
            determinism=rule.determinism,
            declared_at=str(target.location),
            surroundings=self._surroundings(configured),
        )
        try:
            providers = call_rule(rule, context, target)
        finally:
            for text in context.resolutions:
                if text not in self._told:
                    self._told.add(text)
                    self._tell(text)
        default = providers.get(DefaultInfo)
        validations: dict[Artifact, None] = {}
        for key in configured.dependencies.values():
            validations.update(dict.fromkeys(self._analyzed[key].validations))
        if isinstance(default, DefaultInfo):
            validations.update(dict.fromkeys(default.validations))
        label = target.label
        if target.rule == "alias":
            label = next(found_dependencies(rule)).actual_label
        result = AnalyzedTarget(label, target.rule, providers, tuple(validations))
        self._add_actions(configured, context.actions)
        self._listings += context.listings
        self._analyzed[configured.key] = result
        for file in target.outputs:
            if file == target.label:  # as in Bazel: the label then means the target
                continue
            made = Artifact(output_path(target.label, file.name, configured.prefix), "file")
            self._analyzed[file, configured.key[1]] = _file(file, made, GENERATED_FILE, result.validations)

    def _add_actions(self, configured: ConfiguredTarget, actions: Sequence[Action]) -> None:
        label = configured.target.label
        for action in actions:
            for artifact in action.outputs.values():
                other = self._declared_by.setdefault(artifact.path, label)
                if other != label:
                    raise AnalysisError(f"`{label}` and `{other}` both make `{artifact}`")
                self._folders.setdefault(artifact.path.rpartition("/")[0], configured)
        self._actions += actions

    def _resolve(self, configured: ConfiguredTarget, label: Label) -> ResolvedTarget:
        key = configured.dependencies.get(label)
        if key is not None:
            return self._analyzed[key]
        # An attribute that is split over platforms: while it is validated, one variant stands for all.
        variants = [key for (each, _), key in configured.variants.items() if each == label]
        for key in variants:
            if key not in self._incompatible:
                return self._analyzed[key]
        reasons = tuple(
            f"`{platform}`: {self._incompatible[key]}"
            for (each, platform), key in configured.variants.items()
            if each == label
        )
        raise AnalysisError(f"`{label}` can be built for none of the platforms", notes=reasons)

    def _surroundings(self, configured: ConfiguredTarget) -> Surroundings:
        if configured.platform is None and not configured.toolchains and not configured.variants:
            return Surroundings(prefix=configured.prefix) if configured.prefix else _PLAIN

        def variant(label: Label, platform: Label) -> ResolvedTarget | str:
            key = configured.variants[label, platform]
            return self._incompatible.get(key) or self._analyzed[key]

        types = {}
        for label in configured.target.toolchain_types:
            info = self._analyzed[label, None].providers.get(ToolchainTypeInfo)
            if not isinstance(info, ToolchainTypeInfo):
                raise AnalysisError(f"`{label}` is no toolchain_type")
            types[info.label] = info
        declared = [
            info
            for key in configured.toolchains
            if key not in self._incompatible
            and isinstance(
                info := self._analyzed[key].providers.get(DeclaredToolchainInfo), DeclaredToolchainInfo
            )
        ]
        return Surroundings(
            configured.platform,
            self._configured.host,
            types,
            tuple(declared),
            variant,
            configured.prefix,
        )

    def _check_folders(self) -> None:
        """No output lies inside another one."""
        for folder, configured in self._folders.items():
            above = folder
            while above:
                if above in self._declared_by:
                    target = configured.target
                    raise AnalysisError(
                        f"`{target.label}` makes a file in `modelbuild-out/{above}`, "
                        f"which `{self._declared_by[above]}` makes",
                        location=target.location,
                        source_line=target.source_line(),
                        hint="give one of them another name",
                    )
                above = above.rpartition("/")[0]


_PLAIN = Surroundings()


def _file(
    label: Label, artifact: Artifact, rule: str, validations: tuple[Artifact, ...] = ()
) -> AnalyzedTarget:
    return AnalyzedTarget(label, rule, {DefaultInfo: DefaultInfo((artifact,))}, validations)


def _requested(label: Label, target: AnalyzedTarget) -> RequestedTarget:
    default = target.providers.get(DefaultInfo)
    test = target.providers.get(TestInfo)
    return RequestedTarget(
        label,
        target.rule,
        default.files if isinstance(default, DefaultInfo) else (),
        target.validations,
        test.verdict if isinstance(test, TestInfo) else None,
    )
