"""Which targets patterns mean, and which tests a suite."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.errors import LoadError
from modelbuild.label import Label
from modelbuild.loading.label_resolver import LabelResolver
from modelbuild.loading.loaded_packages import LoadedPackages, PackageKey
from modelbuild.loading.package import Target, dependency_cycle, package_str
from modelbuild.loading.patterns import TargetPattern
from modelbuild.loading.source_file import BUILD_FILE


class PatternMatcher:
    """Loads the packages that patterns name. for_query: wildcards mean targets tagged `manual`, too.

    unmatched: labels that were named and lead nowhere, if loading goes on after errors.
    """

    def __init__(self, packages: LoadedPackages, resolver: LabelResolver, *, for_query: bool) -> None:
        self._packages = packages
        self._resolver = resolver
        self._for_query = for_query
        self.unmatched: list[Label] = []

    def match(self, patterns: Sequence[TargetPattern]) -> list[Label]:
        """The labels that patterns name, in order; a `-` takes away what stands before it."""
        found: dict[Label, None] = {}
        matched: list[tuple[TargetPattern, list[PackageKey]]] = []
        for pattern in patterns:
            try:
                matched.append((pattern, self._packages_of(pattern)))
            except LoadError as error:
                self._packages.kept.keep(error)
        self._packages.ensure(key for _, keys in matched for key in keys)
        for pattern, keys in matched:
            try:
                labels = self._labels(pattern, keys)
            except LoadError as error:
                self._packages.kept.keep(error)
                if pattern.kind == "target" and not pattern.negative:
                    self.unmatched.append(pattern.label)
                continue
            if pattern.negative:
                for label in labels:
                    found.pop(label, None)
            else:
                found |= dict.fromkeys(labels)
        return list(found)

    def _packages_of(self, pattern: TargetPattern) -> list[PackageKey]:
        label = pattern.label
        if pattern.kind != "below":
            return [(label.repository, label.package)]
        found = self._packages.below(label.package, label.repository)
        if not found:
            raise LoadError(
                f"`{pattern.text.removeprefix('-')}` matches nothing: there is no package below "
                f"`{package_str(label.repository, label.package)}`",
                hint=f"a package is a directory with a file `{BUILD_FILE}`",
            )
        return found

    def _labels(self, pattern: TargetPattern, keys: Sequence[PackageKey]) -> list[Label]:
        if pattern.kind == "target":
            return [self._resolver.named(pattern.label)]
        labels: list[Label] = []
        for key in keys:
            package = self._packages.get(key)
            if package is None and pattern.kind == "below" and self._packages.broken(key):
                continue
            if package is None:
                raise self._packages.missing(*key)
            if pattern.kind == "package" and pattern.label.name in package.targets:
                labels.append(pattern.label)  # as in Bazel: a target of that name wins over the wildcard
                continue
            everything = (
                self._for_query or pattern.negative
            )  # as in Bazel: a `-` takes manual targets away too
            labels += [t.label for t in package.targets.values() if everything or "manual" not in t.tags]
            if pattern.files:
                files = {*package.generated, *package.exported, *package.implicit}
                labels += [
                    Label(*key, name) for name in sorted(files) if self._resolver.known_file(package, name)
                ]
        return labels

    def expand_suites(self, labels: Sequence[Label]) -> list[Label]:
        """The labels, with each test_suite replaced by its tests."""
        found: dict[Label, None] = {}
        for label in labels:
            target = self._packages.target(label)
            if target is None or target.rule != "test_suite":
                found[label] = None
                continue
            try:
                found |= dict.fromkeys(self._tests_of(target, set(), ()))
            except LoadError as error:
                self._packages.kept.keep(error)
                self.unmatched.append(label)
        return list(found)

    def _tests_of(self, suite: Target, seen: set[Label], path: tuple[Target, ...]) -> list[Label]:
        """The tests of a suite and of suites in it, filtered by its tags as in Bazel. path: suites above."""
        if suite in path:
            raise dependency_cycle(path[path.index(suite) :])
        if suite.label in seen:
            return []
        seen.add(suite.label)
        package = self._packages.get((suite.label.repository, suite.label.package))
        assert package is not None
        if suite.dependencies:
            self._packages.ensure((label.repository, label.package) for label in suite.dependencies)
            members = []
            for label in suite.dependencies:
                self._resolver.resolve(label, suite)
                members.append(self._packages.target(label))
        else:
            members = [t for t in package.targets.values() if t.is_test and "manual" not in t.tags]
        wanted = [tag.removeprefix("+") for tag in suite.tags if tag != "manual" and tag[:1] != "-"]
        unwanted = [tag[1:] for tag in suite.tags if tag.startswith("-")]
        tests: list[Label] = []
        for member in members:
            if member is None:
                continue
            if member.rule == "test_suite":
                tests += self._tests_of(member, seen, (*path, suite))
            elif not member.is_test:
                raise self._resolver.at(
                    suite,
                    member.label,
                    LoadError(f"`{suite.label}` holds `{member.label}`, which is no test"),
                )
            elif all(tag in member.tags for tag in wanted) and not any(t in member.tags for t in unwanted):
                tests.append(member.label)
        return tests

    def is_test(self, label: Label) -> bool:
        """Whether a label names a test target."""
        target = self._packages.target(label)
        return target is not None and target.label == label and target.is_test


def nothing_hint(patterns: Sequence[TargetPattern], *, tests_only: bool) -> str | None:
    """What to say when the patterns match nothing."""
    if any(pattern.negative for pattern in patterns):
        return "a pattern that starts with `-` takes away what stands before it"
    if not tests_only and any(pattern.kind != "target" for pattern in patterns):
        return "a wildcard leaves out targets that are tagged `manual`"
    return None
