"""From target patterns to the target graph: loads only the packages that are needed."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

from modelbuild.errors import LoadError, ModelbuildError
from modelbuild.label import Label, parse_label
from modelbuild.loading.build_options import HOST_PLATFORM, BuildOptions
from modelbuild.loading.declaration import combined
from modelbuild.loading.evaluator import Evaluator, Limits
from modelbuild.loading.label_resolver import PASS_ON_TESTONLY, LabelResolver
from modelbuild.loading.loaded_packages import LoadedPackages
from modelbuild.loading.package import (
    ConfigurationRoots,
    Target,
    TargetGraph,
    dependency_cycle,
)
from modelbuild.loading.pattern_matcher import PatternMatcher, nothing_hint
from modelbuild.loading.patterns import parse_pattern
from modelbuild.loading.rule_file import builtin_rules
from modelbuild.loading.source_file import BUILD_FILE
from modelbuild.loading.visibility import group_labels
from modelbuild.loading.workspace import Workspace

_MANY_ERRORS = 100
"""More labels that lead nowhere than these say nothing more."""


def load_graph(
    workspace: Workspace,
    patterns: Sequence[str],
    *,
    working_package: str = "",
    tests_only: bool = False,
    expand_suites: bool = True,
    for_query: bool = False,
    options: BuildOptions | None = None,
    limits: Limits | None = None,
) -> TargetGraph:
    """Load what `patterns` name and everything that needs.

    working_package: the package that relative patterns start from. tests_only: keep test targets only.
    expand_suites: replace a requested test_suite by its tests. for_query: what is asked about need not be
    buildable, as in Bazel: wildcards mean targets tagged `manual` too and may match nothing, source files may
    be missing, and visibility is not checked. options: platform and toolchains, loaded when something asks
    for them; a query without them loads none. Raises LoadError.
    """
    builtin = builtin_rules()
    collecting = gc.isenabled()
    gc.disable()  # loading makes many objects and drops none: collecting costs a third of its time
    try:
        with Evaluator(tuple(builtin), workspace.root_of, workspace.skipped, limits) as evaluator:
            return _Loading(workspace, evaluator, builtin, for_query=for_query).graph(
                patterns,
                working_package,
                options if options or for_query else BuildOptions(),
                tests_only=tests_only,
                expand_suites=expand_suites,
            )
    finally:
        if collecting:
            gc.enable()


class _Loading:
    """One call of load_graph."""

    def __init__(
        self, workspace: Workspace, evaluator: Evaluator, builtin: Mapping[str, str], *, for_query: bool
    ) -> None:
        self._for_query = for_query
        self._packages = LoadedPackages(workspace, evaluator, builtin)
        self._resolver = LabelResolver(self._packages, for_query=for_query)
        self._matcher = PatternMatcher(self._packages, self._resolver, for_query=for_query)

    def graph(
        self,
        patterns: Sequence[str],
        working_package: str,
        options: BuildOptions | None,
        *,
        tests_only: bool,
        expand_suites: bool,
    ) -> TargetGraph:
        if not patterns:
            raise LoadError("no target is named", hint="`//...` names all of them")
        parsed = [parse_pattern(text, working_package, self._packages.is_package) for text in patterns]
        requested = self._matcher.match(parsed)
        if expand_suites:
            requested = self._matcher.expand_suites(requested)
        if tests_only:
            requested = [label for label in requested if self._matcher.is_test(label)]
        if not requested and not self._for_query:
            what = "no test" if tests_only else "no target"
            shown = " ".join(f"`{text}`" for text in patterns)
            raise LoadError(f"{what} matches {shown}", hint=nothing_hint(parsed, tests_only=tests_only))
        order = self._closure(requested)
        roots = None
        if options is not None and (options.platform or any(map(asks_for_platform, order))):
            roots = self._roots(options)
            order = self._closure([*requested, roots.platform, roots.default_platform, roots.host], roots)
        targets = {target.label: target for target in order}
        return TargetGraph(
            targets,
            self._resolver.sources,
            {output: t.label for t in order for output in t.outputs if output != t.label},
            tuple(requested),
            {str(package): package for package in self._packages},
            self._packages.facts(),
            tuple(targets),
            tuple(self._packages.messages),
            roots,
            frozenset(pattern.label for pattern in parsed if pattern.kind == "target"),
        )

    def _roots(self, options: BuildOptions) -> ConfigurationRoots:
        """Load the platforms and find the registered toolchains."""
        default = options.default_platform or HOST_PLATFORM
        default_platform = self._platform_label(default, "`platform` in modelbuild.toml")
        platform = self._platform_label(options.platform or default, "--platform")
        host = self._platform_label(HOST_PLATFORM, "the machine that builds")
        toolchains = [label for text in options.toolchains for label in self._toolchains(text)]
        return ConfigurationRoots(
            platform, default_platform, host, tuple(dict.fromkeys(toolchains)), options.defines
        )

    def _toolchains(self, text: str) -> list[Label]:
        """The `toolchain` targets that a pattern registers; of a wildcard in the order of their labels."""
        try:
            pattern = parse_pattern(text, "", self._packages.is_package)
            found = self._matcher.match([pattern])
            if pattern.kind == "target":
                return [self._declared_toolchain(label) for label in found]
        except LoadError as error:
            error.notes = (*error.notes, "`toolchains` in modelbuild.toml or --extra-toolchains names it")
            raise
        return sorted(
            label
            for label in found
            if (target := self._packages.target(label)) and target.rule == "toolchain"
        )

    def _declared_toolchain(self, label: Label) -> Label:
        """The `toolchain` that `label` is or, as an alias, leads to. Raises LoadError for anything else."""
        target, seen = self._resolver.resolve(label, None), {label}
        while target is not None and target.rule == "alias" and not seen.issuperset(target.dependencies):
            actual = target.dependencies[0]
            seen.add(actual)
            self._packages.ensure([(actual.repository, actual.package)])
            target = self._resolver.resolve(actual, target)
        if target is None or target.rule != "toolchain":
            kind = f"a {target.rule}" if target else "a file"
            raise LoadError(
                f"`{label}` is {kind} and no toolchain",
                hint="a target of the rule `toolchain` says which platforms it is for",
            )
        return target.label

    def _platform_label(self, text: str, where: str) -> Label:
        label = parse_label(text)
        try:
            self._packages.ensure([(label.repository, label.package)])
            return self._resolver.named(label)
        except LoadError as error:
            error.notes = (*error.notes, f"{where} names it")
            raise

    def _closure(
        self, requested: Sequence[Label], roots_of: ConfigurationRoots | None = None
    ) -> list[Target]:
        """All targets that are needed, dependencies first. Raises LoadError, also for a cycle.

        roots_of: once it is known, registered toolchains are needed by what asks for toolchains.
        """
        toolchains = roots_of.toolchains if roots_of else ()
        roots = [target for target in map(self._packages.target, requested) if target is not None]
        edges: dict[Label, list[Target]] = {}
        level = list({target.label: target for target in roots}.values())
        while level:
            self._packages.ensure(
                (label.repository, label.package) for target in level for label in _needed(target, toolchains)
            )
            self._packages.ensure(
                (label.repository, label.package)
                for target in level
                for label in group_labels(target.visibility)
            )
            following: dict[Label, Target] = {}
            errors: list[ModelbuildError] = []
            for target in level:
                needed: list[Target] = []
                edges[target.label] = needed
                for label in group_labels(target.visibility):
                    try:
                        self._resolver.group(label)
                    except LoadError as error:
                        errors.append(error.located(target.location, target.source_line()))
                for label in _needed(target, toolchains):
                    try:
                        # As in Bazel: who may use a toolchain is not a matter of visibility.
                        other = self._resolver.resolve(label, None if label in toolchains else target)
                    except LoadError as error:
                        if label in target.toolchain_types and self._packages.target(label) is None:
                            error.notes = (*error.notes, f"`{target.rule}` takes toolchains of this type")
                            error.hint = _toolchain_type_hint(label)
                        errors.append(error)
                        if (
                            len(errors) >= _MANY_ERRORS
                        ):  # To look for the place and a hint of each takes time.
                            raise combined(errors, complete=False) from None
                        continue
                    if other is not None:
                        needed.append(other)
                        if other.label not in edges:
                            following[other.label] = other
            if errors:
                raise combined(errors)
            level = [target for label, target in following.items() if label not in edges]
        order = _sorted(roots, edges)
        if not self._for_query:
            self._check_behind_aliases(order, edges)
        return order

    def _check_behind_aliases(self, order: Sequence[Target], edges: Mapping[Label, Sequence[Target]]) -> None:
        """Raise LoadError for a user of an alias that leads to something `testonly`."""
        hidden: dict[Label, Target] = {}
        for target in order:
            for other in edges[target.label]:
                if other.rule == "alias":
                    found = hidden.get(other.label)
                else:
                    found = other if target.rule == "alias" and other.testonly else None
                if found is None:
                    continue
                if target.rule == "alias":
                    hidden[target.label] = found
                elif target.rule not in PASS_ON_TESTONLY:
                    self._resolver.check_testonly(target, found, other.label)


def _toolchain_type_hint(label: Label) -> str:
    declaration = f'toolchain_type(name = "{label.name}", visibility = ["//visibility:public"])'
    return f"a workspace declares its toolchain types: `{declaration}` in `{label.package}/{BUILD_FILE}`"


def _needed(target: Target, toolchains: Sequence[Label]) -> tuple[Label, ...]:
    asked = (*target.toolchain_types, *toolchains) if target.toolchain_types else ()
    return (*target.dependencies, *target.conditions, *asked)


def asks_for_platform(target: Target) -> bool:
    """Whether the platforms have to be loaded for a target."""
    attributes = target.attributes
    stated = attributes.get("target_compatible_with") or attributes.get("exec_compatible_with")
    return bool(target.rule_class.platform_attribute or stated) or target.needs_platform


def _sorted(roots: Sequence[Target], edges: dict[Label, list[Target]]) -> list[Target]:
    """Depth first, dependencies before their users. Raises LoadError for a cycle."""
    order: list[Target] = []
    done: set[Label] = set()
    active: dict[Label, Target] = {}
    for root in roots:
        if root.label in done:
            continue
        stack = [(root, iter(edges[root.label]))]
        active[root.label] = root
        while stack:
            target, rest = stack[-1]
            for other in rest:
                if other.label in done:
                    continue
                if other.label in active:
                    path = [entry for entry, _ in stack]
                    raise dependency_cycle(path[next(i for i, t in enumerate(path) if t is other) :])
                active[other.label] = other
                stack.append((other, iter(edges[other.label])))
                break
            else:
                stack.pop()
                del active[target.label]
                done.add(target.label)
                order.append(target)
    return order
