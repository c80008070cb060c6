"""From target patterns to the target graph: loads only the packages that are needed."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label
from modelbuild.loading.build_options import HOST_PLATFORM, BuildOptions
from modelbuild.loading.closure import Closure, find_closure
from modelbuild.loading.evaluator import Evaluator, Limits
from modelbuild.loading.label_resolver import LabelResolver
from modelbuild.loading.loaded_packages import LoadedPackages
from modelbuild.loading.package import (
    ConfigurationRoots,
    Target,
    TargetGraph,
)
from modelbuild.loading.pattern_matcher import PatternMatcher, nothing_hint
from modelbuild.loading.patterns import parse_pattern
from modelbuild.loading.rule_file import builtin_rules
from modelbuild.loading.workspace import Workspace


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
        closure = self._find_closure(requested)
        requested = self._buildable(requested, closure)
        roots = None
        if options is not None and (options.platform or any(map(asks_for_platform, closure.order))):
            roots = self._roots(options)
            platforms = [roots.platform, roots.default_platform, roots.host]
            closure = self._find_closure([*requested, *platforms], roots)
            requested = self._buildable(requested, closure)
            if len(self._buildable(platforms, closure)) < len(platforms):
                raise self._packages.kept.combined()
        if not requested and self._packages.kept.errors:
            raise self._packages.kept.combined()
        left = set(requested)
        targets = {target.label: target for target in closure.order}
        return TargetGraph(
            targets,
            self._resolver.sources,
            {output: t.label for t in closure.order for output in t.outputs if output != t.label},
            tuple(requested),
            {str(package): package for package in self._packages},
            self._packages.facts(),
            tuple(targets),
            tuple(self._packages.messages),
            roots,
            frozenset(pattern.label for pattern in parsed if pattern.kind == "target"),
            self._packages.kept.errors,
            (*(label for label in wanted if label not in left), *self._matcher.unmatched),
            closure.branch_errors,
        )

    def _buildable(self, requested: Sequence[Label], closure: Closure) -> list[Label]:
        """The labels that nothing is wrong with; `closure` holds the targets that can be built."""
        if not self._packages.kept.errors:
            return list(requested)
        known = {target.label for target in closure.order}
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

    def _find_closure(
        self, requested: Sequence[Label], roots_of: ConfigurationRoots | None = None
    ) -> Closure:
        """All targets that are needed. roots_of: says which toolchains are registered, once that is known."""
        roots = (target for target in map(self._packages.target, requested) if target is not None)
        return find_closure(
            roots,
            self._packages,
            self._resolver,
            toolchains=roots_of.toolchains if roots_of else (),
            for_query=self._for_query,
        )


def asks_for_platform(target: Target) -> bool:
    """Whether the platforms have to be loaded for a target."""
    attributes = target.attributes
    stated = attributes.get("target_compatible_with") or attributes.get("exec_compatible_with")
    return bool(target.rule_class.platform_attribute or stated) or target.needs_platform
