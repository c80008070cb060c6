"""Analysis: rules run, actions are declared, providers flow from dependencies to dependents."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from modelbuild.actions.action import Action
from modelbuild.actions.graph import ActionGraph, RequestedTarget, make_graph
from modelbuild.analysis.context import Context
from modelbuild.artifact import Artifact
from modelbuild.errors import AnalysisError, ModelbuildError
from modelbuild.label import Label
from modelbuild.loading.attribute_error import attribute_errors
from modelbuild.loading.declaration import combined, found_dependencies
from modelbuild.loading.package import Target, TargetGraph
from modelbuild.loading.select import CONDITION_RULES, choose_default, resolve_select
from modelbuild.provider import DefaultInfo, Provider, TestInfo
from modelbuild.rule import Rule

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

    listings: directories of the machine that rules have listed.
    """

    graph: ActionGraph
    targets: Mapping[Label, AnalyzedTarget]
    listings: tuple[str, ...] = ()


def analyze(targets: TargetGraph) -> Analysis:
    """Run the rules of all targets, dependencies first. Touches no artifact.

    Raises AnalysisError, located at the BUILD line of the target that is wrong.
    """
    analyzed: dict[Label, AnalyzedTarget] = {
        # A file of another repository is known by its absolute path; one of the workspace by a relative one.
        label: _file(label, Artifact(path if label.repository else label.path, "source"), SOURCE_FILE)
        for label, path in targets.sources.items()
    }
    actions: list[Action] = []
    listings: list[str] = []
    declared_by: dict[str, Label] = {}
    folders: dict[str, Label] = {}
    for label in targets.order:
        target = targets.targets[label]
        try:
            result, context = _analyze_target(target, analyzed)
            for action in context.actions:
                for artifact in action.outputs.values():
                    other = declared_by.setdefault(artifact.path, label)
                    if other != label:
                        raise AnalysisError(f"`{label}` and `{other}` both make `{artifact}`")
                    folders.setdefault(artifact.path.rpartition("/")[0], label)
        except ModelbuildError as error:
            raise error.located(target.location, target.source_line()) from None
        analyzed[label] = result
        actions += context.actions
        listings += context.listings
        for file in target.outputs:
            if file == label:  # as in Bazel: the label then means the target
                continue
            analyzed[file] = _file(file, Artifact(file.path, "file"), GENERATED_FILE, result.validations)
    _check_folders(declared_by, folders, targets)
    requested = tuple(_requested(label, analyzed[label]) for label in targets.requested)
    return Analysis(make_graph(actions, requested), analyzed, tuple(dict.fromkeys(listings)))


def _check_folders(
    declared_by: Mapping[str, Label], folders: Mapping[str, Label], targets: TargetGraph
) -> None:
    """No output lies inside another one. folders: of outputs, with a target that makes something in each."""
    for folder, label in folders.items():
        above = folder
        while above:
            if above in declared_by:
                target = targets.targets[label]
                raise AnalysisError(
                    f"`{label}` makes a file in `modelbuild-out/{above}`, which `{declared_by[above]}` makes",
                    location=target.location,
                    source_line=target.source_line(),
                    hint="give one of them another name",
                )
            above = above.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class _Attributes:
    """The AttributeContext of analysis."""

    package: str
    repository: str
    analyzed: Mapping[Label, AnalyzedTarget]

    def resolve(self, label: Label) -> AnalyzedTarget:
        return self.analyzed[label]


def _analyze_target(
    target: Target, analyzed: Mapping[Label, AnalyzedTarget]
) -> tuple[AnalyzedTarget, Context]:
    label = target.label
    for condition in target.conditions:
        if analyzed[condition].rule not in CONDITION_RULES:
            raise AnalysisError(
                f"`{condition}` is a {analyzed[condition].rule} and no condition of a `select`",
                notes=(f"needed by `{label}`",),
            )
    attributes = resolve_select(target.attributes, choose_default)
    context_of_labels = _Attributes(label.package, label.repository, analyzed)
    try:
        rule = target.rule_class.model_validate(attributes, context=context_of_labels)
    except ValidationError as error:
        errors = attribute_errors(
            error, target.rule, target.rule_class, label.name, target.location, target.root
        )
        raise combined(errors) from None
    if rule.target_compatible_with:
        raise AnalysisError(
            f"`{label}` says `target_compatible_with`, and platforms are not there yet",
            hint="leave it out; nothing would be checked",
        )
    context = Context(label, determinism=rule.determinism, declared_at=str(target.location))
    providers = {type(provider): provider for provider in _run_rule(rule, context, target)}
    default = providers.get(DefaultInfo)
    validations: dict[Artifact, None] = {}
    for dependency in target.dependencies:
        validations.update(dict.fromkeys(analyzed[dependency].validations))
    if isinstance(default, DefaultInfo):
        validations.update(dict.fromkeys(default.validations))
    if target.rule == "alias":
        label = next(found_dependencies(rule)).actual_label
    return AnalyzedTarget(label, target.rule, providers, tuple(validations)), context


def _run_rule(rule: Rule, context: Context, target: Target) -> Sequence[Provider]:
    """Call `analyze`. A mistake in a rule is its author's: told with the place, not as a bug of ours."""
    try:
        return list(rule.analyze(context))
    except ModelbuildError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        notes = tuple(f"{frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}" for frame in frames)
        raise AnalysisError(
            f"the rule `{target.rule}` failed on `{target.label}`: {type(error).__name__}: {error}",
            notes=notes,
        ) from error


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
