"""From target patterns to the target graph: loads only the packages that are needed."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from modelbuild.errors import LoadError, Location, ModelbuildError
from modelbuild.label import Label, parse_label
from modelbuild.loading.build_options import HOST_PLATFORM, BuildOptions
from modelbuild.loading.declaration import PackageDeclaration, combined, crossing_error
from modelbuild.loading.evaluator import EvaluatedPackage, Evaluator, Limits
from modelbuild.loading.package import (
    ConfigurationRoots,
    Facts,
    Package,
    Target,
    TargetGraph,
    package_str,
)
from modelbuild.loading.patterns import TargetPattern, parse_pattern
from modelbuild.loading.rule_file import RuleClasses, builtin_rules
from modelbuild.loading.source_file import BUILD_FILE, place_in_call, source_line
from modelbuild.loading.suggestion import did_you_mean
from modelbuild.loading.visibility import PackageGroup, Visibility, group_labels, is_visible
from modelbuild.loading.workspace import FOREIGN_BUILD_FILES, WORKSPACE_FILE, Workspace

_Key = tuple[str, str]


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
    be missing, and visibility is not checked. options: platform and toolchains; loaded when something asks
    for them. Raises LoadError.
    """
    builtin = builtin_rules()
    collecting = gc.isenabled()
    gc.disable()  # loading makes many objects and drops none: collecting costs a third of its time
    try:
        with Evaluator(tuple(builtin), workspace.root_of, workspace.skipped, limits) as evaluator:
            return _Loading(workspace, evaluator, builtin, for_query=for_query).graph(
                patterns,
                working_package,
                options or BuildOptions(),
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
        self._workspace = workspace
        self._for_query = for_query
        self._evaluator = evaluator
        self._classes = RuleClasses(workspace.root_of, builtin)
        self._packages: dict[_Key, Package | None] = {}
        self._files: set[str] = {os.path.join(workspace.root, WORKSPACE_FILE)}
        self._directories: set[str] = set()
        self._absent: set[str] = set()
        self._crossings: dict[tuple[str, str], bool] = {}
        self._sources: dict[Label, str] = {}
        self._messages: list[str] = []

    def graph(
        self,
        patterns: Sequence[str],
        working_package: str,
        options: BuildOptions,
        *,
        tests_only: bool,
        expand_suites: bool,
    ) -> TargetGraph:
        if not patterns:
            raise LoadError("no target is named", hint="`//...` names all of them")
        parsed = [parse_pattern(text, working_package, self._is_package) for text in patterns]
        requested = self._match(parsed)
        if expand_suites:
            requested = self._expand_suites(requested)
        if tests_only:
            requested = [label for label in requested if self._is_test(label)]
        if not requested and not self._for_query:
            what = "no test" if tests_only else "no target"
            shown = " ".join(f"`{text}`" for text in patterns)
            raise LoadError(f"{what} matches {shown}", hint=self._nothing_hint(parsed, tests_only=tests_only))
        order = self._closure(requested)
        roots = None
        if not self._for_query and (options.platform or any(map(_asks_for_platform, order))):
            roots = self._roots(options)
            order = self._closure([*requested, roots.platform, roots.default_platform, roots.host], roots)
        targets = {target.label: target for target in order}
        return TargetGraph(
            targets,
            self._sources,
            {output: t.label for t in order for output in t.outputs if output != t.label},
            tuple(requested),
            {str(package): package for package in self._packages.values() if package is not None},
            Facts(
                tuple(sorted(self._files | self._classes.files)),
                tuple(sorted(self._directories)),
                tuple(sorted(self._absent)),
            ),
            tuple(targets),
            tuple(self._messages),
            roots,
            frozenset(pattern.label for pattern in parsed if pattern.kind == "target"),
        )

    def _roots(self, options: BuildOptions) -> ConfigurationRoots:
        """Load the platforms and find the registered toolchains."""
        default = options.default_platform or HOST_PLATFORM
        platform = self._platform_label(options.platform or default, "--platform")
        default_platform = self._platform_label(default, "`platform` in modelbuild.toml")
        host = self._platform_label(HOST_PLATFORM, "the machine that builds")
        toolchains: list[Label] = []
        for text in options.toolchains:
            try:
                found = self._match([parse_pattern(text, "", self._is_package)])
            except LoadError as error:
                error.notes = (*error.notes, "`toolchains` in modelbuild.toml or --extra-toolchains names it")
                raise
            toolchains += sorted(
                label for label in found if (target := self._target(label)) and target.rule == "toolchain"
            )
        return ConfigurationRoots(
            platform, default_platform, host, tuple(dict.fromkeys(toolchains)), options.defines
        )

    def _platform_label(self, text: str, where: str) -> Label:
        label = parse_label(text)
        try:
            self._ensure([(label.repository, label.package)])
            return self._named(label)
        except LoadError as error:
            error.notes = (*error.notes, f"{where} names it")
            raise

    # Packages

    def _is_package(self, package: str) -> bool:
        return self._exists(("", package))

    def _exists(self, key: _Key) -> bool:
        """Whether a package has a BUILD file; the answer is a fact."""
        path = self._workspace.build_file(key[1], key[0])
        found = self._workspace.is_package(key[1], key[0])
        (self._files if found else self._absent).add(path)
        return found

    def _ensure(self, keys: Iterable[_Key]) -> None:
        """Load packages that are not loaded; those that do not exist are remembered as None."""
        wanted = []
        for key in dict.fromkeys(keys):
            if key in self._packages:
                continue
            if self._exists(key):
                wanted.append(key)
            else:
                self._packages[key] = None
        errors: list[ModelbuildError] = []
        for evaluated in self._evaluated(wanted):
            self._files.update(evaluated.files)
            self._directories.update(evaluated.directories)
            self._messages += evaluated.messages
            root = self._workspace.root_of(evaluated.repository)
            try:
                package = PackageDeclaration(evaluated, root, self._classes, self._crosses).package()
            except LoadError as error:
                errors.append(error)
                continue
            self._packages[evaluated.repository, evaluated.package] = package
        if errors:
            raise combined(errors)

    def _evaluated(self, keys: Sequence[_Key]) -> Iterator[EvaluatedPackage]:
        try:
            yield from self._evaluator.evaluate(keys)
        except LoadError as error:
            error.source_line = source_line(self._workspace.root, error.location)
            raise

    def _crosses(self, repository: str, package: str, name: str) -> str | None:
        """The subpackage that a file name reaches into, if there is one."""
        parts = name.split("/")
        for count in range(len(parts) - 1, 0, -1):
            inner = "/".join(parts[:count])
            path = f"{package}/{inner}" if package else inner
            key = (repository, path)
            if key not in self._crossings:
                self._crossings[key] = self._exists(key)
            if self._crossings[key]:
                return path
        return None

    def _no_such_package(self, repository: str, package: str) -> LoadError:
        shown = package_str(repository, package)
        directory = os.path.dirname(self._workspace.build_file(package, repository))
        if not repository and self._workspace.is_skipped(package):
            return LoadError(
                f"there is no package `{shown}`",
                notes=("its directory is ignored, or belongs to another workspace",),
            )
        if not os.path.isdir(directory):
            known = self._workspace.find_packages("", repository).packages
            hint = did_you_mean(shown, (package_str(repository, name) for name in known if name))
            return LoadError(
                f"there is no package `{shown}`", notes=("there is no such directory",), hint=hint
            )
        notes = (f"its directory has no file `{BUILD_FILE}`",)
        if os.path.isdir(os.path.join(directory, BUILD_FILE)):
            notes = (f"`{BUILD_FILE}` is a directory there",)
        foreign = [n for n in FOREIGN_BUILD_FILES if os.path.isfile(os.path.join(directory, n))]
        hint = f"it has `{foreign[0]}`, which modelbuild does not read; rename it" if foreign else None
        return LoadError(f"there is no package `{shown}`", notes=notes, hint=hint)

    # Patterns

    def _match(self, patterns: Sequence[TargetPattern]) -> list[Label]:
        """The labels that patterns name, in order; a `-` takes away what stands before it."""
        found: dict[Label, None] = {}
        matched = [(pattern, self._packages_of(pattern)) for pattern in patterns]
        self._ensure(key for _, keys in matched for key in keys)
        for pattern, keys in matched:
            labels = self._labels(pattern, keys)
            if pattern.negative:
                for label in labels:
                    found.pop(label, None)
            else:
                found |= dict.fromkeys(labels)
        return list(found)

    def _packages_of(self, pattern: TargetPattern) -> list[_Key]:
        label = pattern.label
        if pattern.kind != "below":
            return [(label.repository, label.package)]
        listing = self._workspace.find_packages(label.package, label.repository)
        self._directories.update(listing.directories)
        if not listing.packages:
            raise LoadError(
                f"`{pattern.text.removeprefix('-')}` matches nothing: there is no package below "
                f"`{package_str(label.repository, label.package)}`",
                hint=f"a package is a directory with a file `{BUILD_FILE}`",
            )
        return [(label.repository, package) for package in listing.packages]

    def _labels(self, pattern: TargetPattern, keys: Sequence[_Key]) -> list[Label]:
        if pattern.kind == "target":
            return [self._named(pattern.label)]
        labels: list[Label] = []
        for key in keys:
            package = self._packages[key]
            if package is None:
                raise self._no_such_package(*key)
            if pattern.kind == "package" and pattern.label.name in package.targets:
                labels.append(pattern.label)  # as in Bazel: a target of that name wins over the wildcard
                continue
            everything = (
                self._for_query or pattern.negative
            )  # as in Bazel: a `-` takes manual targets away too
            labels += [t.label for t in package.targets.values() if everything or "manual" not in t.tags]
            if pattern.files:
                files = {*package.generated, *package.exported, *package.implicit}
                labels += [Label(*key, name) for name in sorted(files) if self._file(package, name)]
        return labels

    def _file(self, package: Package, name: str) -> bool:
        label = Label(package.repository, package.name, name)
        if name in package.generated:
            return True
        path = os.path.join(package.root, label.path)
        if not os.path.exists(path):
            return False
        self._sources[label] = path
        return True

    def _named(self, label: Label) -> Label:
        """A label that a person typed; it may name a target, an output or a source file."""
        self._resolve(label, None)
        return label

    def _nothing_hint(self, patterns: Sequence[TargetPattern], *, tests_only: bool) -> str | None:
        if any(pattern.negative for pattern in patterns):
            return "a pattern that starts with `-` takes away what stands before it"
        if not tests_only and any(pattern.kind != "target" for pattern in patterns):
            return "a wildcard leaves out targets that are tagged `manual`"
        return None

    def _expand_suites(self, labels: Sequence[Label]) -> list[Label]:
        found: dict[Label, None] = {}
        for label in labels:
            target = self._target(label)
            if target is None or target.rule != "test_suite":
                found[label] = None
            else:
                found |= dict.fromkeys(self._tests_of(target, set()))
        return list(found)

    def _tests_of(self, suite: Target, seen: set[Label]) -> list[Label]:
        """The tests of a suite and of suites in it, filtered by its tags as in Bazel."""
        if suite.label in seen:
            return []
        seen.add(suite.label)
        package = self._packages[suite.label.repository, suite.label.package]
        assert package is not None
        if suite.dependencies:
            self._ensure((label.repository, label.package) for label in suite.dependencies)
            members = []
            for label in suite.dependencies:
                self._resolve(label, suite)
                members.append(self._target(label))
        else:
            members = [t for t in package.targets.values() if t.is_test and "manual" not in t.tags]
        wanted = [tag.removeprefix("+") for tag in suite.tags if tag != "manual" and tag[:1] != "-"]
        unwanted = [tag[1:] for tag in suite.tags if tag.startswith("-")]
        tests: list[Label] = []
        for member in members:
            if member is None:
                continue
            if member.rule == "test_suite":
                tests += self._tests_of(member, seen)
            elif not member.is_test:
                raise self._at(
                    suite,
                    member.label,
                    LoadError(f"`{suite.label}` holds `{member.label}`, which is no test"),
                )
            elif all(tag in member.tags for tag in wanted) and not any(t in member.tags for t in unwanted):
                tests.append(member.label)
        return tests

    def _is_test(self, label: Label) -> bool:
        target = self._target(label)
        return target is not None and target.label == label and target.is_test

    # Labels

    def _target(self, label: Label) -> Target | None:
        """The target of a label that names one, or names an output of one; its package is loaded."""
        package = self._packages.get((label.repository, label.package))
        if package is None:
            return None
        return package.targets.get(label.name) or package.targets.get(package.generated.get(label.name, ""))

    def _resolve(self, label: Label, user: Target | None) -> Target | None:
        """The target that `label` leads to, or None for a source file. Raises LoadError.

        user: the target that refers to it, or None when a person does.
        """
        package = self._packages.get((label.repository, label.package))
        if package is None:
            raise self._at(user, label, self._no_such_package(label.repository, label.package))
        target = self._target(label)
        if target is not None:
            if user is not None:
                self._check_use(user, target, label)
            return target
        if label in self._sources and user is not None and _same_package(user.label, label):
            return None
        if "/" in label.name:
            crossed = self._crosses(label.repository, label.package, label.name)
            if crossed is not None:
                raise self._at(user, label, crossing_error(label, crossed))
        path = os.path.join(package.root, label.path)
        declared = label.name in package.exported or label.name in package.implicit
        if not declared or not (self._for_query or os.path.exists(path)):
            raise self._at(user, label, self._no_such_target(label, package, path))
        if user is not None and not self._for_query:
            visibility = package.exported.get(label.name, package.default_visibility)
            self._check_visible(user, label, visibility, None)
        self._sources[label] = path
        return None

    def _no_such_target(self, label: Label, package: Package, path: str) -> LoadError:
        message = f"there is no target `{label}`"
        notes: tuple[str, ...] = (f"package `{package}` is declared in {package.path}",)
        if os.path.lexists(path) and not os.path.exists(path):
            return LoadError(message, notes=("a symlink of that name leads nowhere",))
        if os.path.exists(path):
            return LoadError(
                message,
                notes=("a file of that name is there, but no target of its package names it",),
                hint=f'`exports_files(["{label.name}"])` in {package.path} makes it known',
            )
        known = [*package.targets, *package.generated, *package.exported]
        directory = os.path.dirname(path)
        if os.path.isdir(directory):
            prefix = label.name.rpartition("/")[0]
            known += [f"{prefix}/{n}" if prefix else n for n in sorted(os.listdir(directory))[:1000]]
        hint = did_you_mean(label.name, known, ":")
        return LoadError(message, notes=notes, hint=hint)

    def _check_use(self, user: Target, target: Target, label: Label) -> None:
        if self._for_query:
            return
        if not _same_package(user.label, target.label):
            self._check_visible(user, label, target.visibility, target)
        if target.testonly and not user.testonly and user.rule != "test_suite":
            raise self._at(
                user,
                label,
                LoadError(
                    f"`{user.label}` cannot depend on `{target.label}`, which is `testonly`",
                    notes=(f"`{target.label}` is declared at {target.place}",),
                ),
            )

    def _check_visible(
        self, user: Target, label: Label, visibility: Visibility, target: Target | None
    ) -> None:
        if _same_package(user.label, label) or is_visible(visibility, label, user.label, self._group):
            return
        shown = ", ".join(f"`{_short(entry)}`" for entry in visibility) or "nobody"
        place = (f"`{label}` is declared at {target.place}",) if target else ()
        error = LoadError(
            f"`{label}` is not visible from `{user.label}`",
            notes=(*place, f"its visibility is {shown}"),
            hint=None if target else f'`exports_files(["{label.name}"])` in its package makes it visible',
        )
        if target is not None:
            error.hint = f"add `//{user.label.package}:__pkg__` to the `visibility` of `{target.label}`"
        raise self._at(user, label, error)

    def _group(self, label: Label) -> PackageGroup | None:
        self._ensure([(label.repository, label.package)])
        package = self._packages[label.repository, label.package]
        group = package.groups.get(label.name) if package else None
        if group is None:
            hint = (
                f"did you mean `//visibility:{label.name}`?" if label.name in {"public", "private"} else None
            )
            raise LoadError(f"there is no package_group `{label}`", hint=hint)
        return group

    def _at(self, user: Target | None, label: Label, error: LoadError) -> LoadError:
        """`error`, placed where `user` refers to `label`."""
        if user is None or error.location is not None:
            return error
        error.location = self._reference(user, label)
        error.source_line = source_line(user.root, error.location)
        if error.location != user.location:
            error.notes = (f"needed by `{user.label}`, declared at {user.place}", *error.notes)
        elif user.chain:
            error.notes = (f"needed by `{user.label}`, in macro `{user.chain[0].function}`", *error.notes)
        else:
            error.notes = (f"needed by `{user.label}`", *error.notes)
        return error

    def _reference(self, user: Target, label: Label) -> Location:
        forms = [f"//{label.package}:{label.name}"]
        if _same_package(user.label, label):
            forms += [f":{label.name}", label.name]
        if label.package.rpartition("/")[2] == label.name:
            forms.append(f"//{label.package}")
        quoted = "|".join(re.escape(form) for form in forms)
        return place_in_call(user.root, user.location, rf"(?<=[\"'])({quoted})(?=[\"'])")

    # Dependencies

    def _closure(
        self, requested: Sequence[Label], roots_of: ConfigurationRoots | None = None
    ) -> list[Target]:
        """All targets that are needed, dependencies first. Raises LoadError, also for a cycle.

        roots_of: once it is known, registered toolchains are needed by what asks for toolchains.
        """
        toolchains = roots_of.toolchains if roots_of else ()
        roots = [target for target in map(self._target, requested) if target is not None]
        edges: dict[Label, list[Target]] = {}
        level = list({target.label: target for target in roots}.values())
        while level:
            self._ensure(
                (label.repository, label.package) for target in level for label in _needed(target, toolchains)
            )
            self._ensure(
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
                        self._group(label)
                    except LoadError as error:
                        errors.append(error.located(target.location, target.source_line()))
                for label in _needed(target, toolchains):
                    try:
                        # As in Bazel: who may use a toolchain is not a matter of visibility.
                        other = self._resolve(label, None if label in toolchains else target)
                    except LoadError as error:
                        errors.append(error)
                        continue
                    if other is not None:
                        needed.append(other)
                        if other.label not in edges:
                            following[other.label] = other
            if errors:
                raise combined(errors)
            level = [target for label, target in following.items() if label not in edges]
        return _sorted(roots, edges)


def _needed(target: Target, toolchains: Sequence[Label]) -> tuple[Label, ...]:
    asked = (*target.toolchain_types, *toolchains) if target.toolchain_types else ()
    return (*target.dependencies, *target.conditions, *asked)


def _asks_for_platform(target: Target) -> bool:
    rule = target.rule_class
    return bool(
        target.conditions
        or target.toolchain_types
        or rule.needs_platform
        or rule.platform_attribute
        or target.attributes.get("target_compatible_with")
    )


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
                    raise _cycle(path[next(i for i, t in enumerate(path) if t is other) :])
                active[other.label] = other
                stack.append((other, iter(edges[other.label])))
                break
            else:
                stack.pop()
                del active[target.label]
                done.add(target.label)
                order.append(target)
    return order


def _cycle(targets: Sequence[Target]) -> LoadError:
    following = [*targets[1:], targets[0]]
    return LoadError(
        f"`{targets[0].label}` depends on itself",
        location=targets[0].location,
        source_line=targets[0].source_line(),
        notes=tuple(
            f"`{target.label}` ({target.place}) needs `{other.label}`"
            for target, other in zip(targets, following, strict=True)
        ),
    )


def _same_package(a: Label, b: Label) -> bool:
    return a.package == b.package and a.repository == b.repository


def _short(label: Label) -> str:
    """A visibility label as people write it."""
    if label.package == "visibility":
        return f"//visibility:{label.name}"
    return str(label)
