"""From target patterns to the target graph: loads only the packages that are needed."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

from modelbuild.errors import LoadError
from modelbuild.kept_errors import combined
from modelbuild.label import Label, parse_label
from modelbuild.loading.build_options import HOST_PLATFORM, BuildOptions
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

MANY_ERRORS = 100
"""More errors than these say nothing more to someone who wants none."""


class _Unbuildable(Exception):
    """Targets that cannot be built, and why."""

    def __init__(self, targets: Sequence[Target], error: LoadError) -> None:
        super().__init__(error)
        self.labels = {target.label for target in targets}
        self.error = error


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
    keep_going: bool = False,
) -> TargetGraph:
    """Load what `patterns` name and everything that needs.

    working_package: the package that relative patterns start from. tests_only: keep test targets only.
    expand_suites: replace a requested test_suite by its tests. for_query: what is asked about need not be
    buildable, as in Bazel: wildcards mean targets tagged `manual` too and may match nothing, source files may
    be missing, and visibility is not checked. options: platform and toolchains, loaded when something asks
    for them; a query without them loads none. keep_going: go on after errors with what does not need what
    is wrong, as Bazel does: a package with an error has no targets. Raises LoadError, also when nothing is
    left or there are very many errors.
    """
    builtin = builtin_rules()
    collecting = gc.isenabled()
    gc.disable()  # loading makes many objects and drops none: collecting costs a third of its time
    try:
        with Evaluator(tuple(builtin), workspace.root_of, workspace.skipped, limits) as evaluator:
            loading = _Loading(workspace, evaluator, builtin, for_query=for_query, keep_going=keep_going)
            return loading.graph(
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
        self,
        workspace: Workspace,
        evaluator: Evaluator,
        builtin: Mapping[str, str],
        *,
        for_query: bool,
        keep_going: bool,
    ) -> None:
        self._for_query = for_query
        self._keep_going = keep_going
        self._packages = LoadedPackages(workspace, evaluator, builtin, keep_going=keep_going)
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
        if not requested and self._packages.kept.errors:
            raise self._packages.kept.combined()
        if not requested and not self._for_query:
            what = "no test" if tests_only else "no target"
            shown = " ".join(f"`{text}`" for text in patterns)
            raise LoadError(f"{what} matches {shown}", hint=nothing_hint(parsed, tests_only=tests_only))
        wanted = requested
        order = self._closure(requested)
        requested = self._buildable(requested, order)
        roots = None
        if options is not None and (options.platform or any(map(asks_for_platform, order))):
            roots = self._roots(options)
            platforms = [roots.platform, roots.default_platform, roots.host]
            order = self._closure([*requested, *platforms], roots)
            requested = self._buildable(requested, order)
            if len(self._buildable(platforms, order)) < len(platforms):
                raise self._packages.kept.combined()
        if not requested and self._packages.kept.errors:
            raise self._packages.kept.combined()
        left = set(requested)
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
            self._packages.kept.errors,
            (*(label for label in wanted if label not in left), *self._matcher.unmatched),
        )

    def _buildable(self, requested: Sequence[Label], order: Sequence[Target]) -> list[Label]:
        """The labels that nothing is wrong with; `order` holds the targets that can be built."""
        if not self._packages.kept.errors:
            return list(requested)
        known = {target.label for target in order}
        found = ((label, self._packages.target(label)) for label in requested)
        return [label for label, target in found if target is None or target.label in known]

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
        """All targets that are needed, dependencies first. Raises LoadError, also for a cycle, or leaves out
        what needs a target with an error.

        roots_of: once it is known, registered toolchains are needed by what asks for toolchains.
        """
        toolchains = roots_of.toolchains if roots_of else ()
        roots = [target for target in map(self._packages.target, requested) if target is not None]
        edges: dict[Label, list[Target]] = {}
        bad: set[Label] = set()
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
            errors: list[LoadError] = []
            for target in level:
                before = len(errors)
                needed: list[Target] = []
                edges[target.label] = needed
                for label in group_labels(target.visibility):
                    try:
                        self._resolver.group(label)
                    except LoadError as error:
                        error.located(target.location, target.source_line())
                        errors.append(error)
                for label in _needed(target, toolchains):
                    try:
                        # As in Bazel: who may use a toolchain is not a matter of visibility.
                        other = self._resolver.resolve(label, None if label in toolchains else target)
                    except LoadError as error:
                        if label in target.toolchain_types and self._packages.target(label) is None:
                            error.notes = (*error.notes, f"`{target.rule}` takes toolchains of this type")
                            error.hint = _toolchain_type_hint(label)
                        errors.append(error)
                        # To look for the place and a hint of each takes time.
                        if len(errors) >= MANY_ERRORS and not self._keep_going:
                            raise combined(errors, complete=False) from None
                        continue
                    if other is not None:
                        needed.append(other)
                        if other.label not in edges:
                            following[other.label] = other
                if len(errors) > before:
                    bad.add(target.label)
            if errors and not self._keep_going:
                raise combined(errors)
            for each in errors:
                self._packages.kept.keep(each)
            level = [target for label, target in following.items() if label not in edges]
        while True:
            without = _users(bad, edges)
            try:
                order = _sorted([root for root in roots if root.label not in without], edges)
                if not self._for_query:
                    self._check_behind_aliases(order, edges)
            except _Unbuildable as found:
                self._packages.kept.keep(found.error)
                bad |= found.labels
                continue
            return order

    def _check_behind_aliases(self, order: Sequence[Target], edges: Mapping[Label, Sequence[Target]]) -> None:
        """Raise _Unbuildable for a user of an alias that leads to something `testonly`."""
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
                    try:
                        self._resolver.check_testonly(target, found, other.label)
                    except LoadError as error:
                        raise _Unbuildable([target], error) from None


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


def _users(bad: set[Label], edges: Mapping[Label, Sequence[Target]]) -> set[Label]:
    """The targets of `bad`, and all that need one of them."""
    if not bad:
        return bad
    users: dict[Label, list[Label]] = {}
    for label, needed in edges.items():
        for other in needed:
            users.setdefault(other.label, []).append(label)
    found, waiting = set(bad), list(bad)
    while waiting:
        fresh = [user for user in users.get(waiting.pop(), ()) if user not in found]
        found.update(fresh)
        waiting += fresh
    return found


def _sorted(roots: Sequence[Target], edges: dict[Label, list[Target]]) -> list[Target]:
    """Depth first, dependencies before their users. Raises _Unbuildable for a cycle."""
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
                    cycle = path[next(i for i, t in enumerate(path) if t is other) :]
                    raise _Unbuildable(cycle, dependency_cycle(cycle))
                active[other.label] = other
                stack.append((other, iter(edges[other.label])))
                break
            else:
                stack.pop()
                del active[target.label]
                done.add(target.label)
                order.append(target)
    return order
