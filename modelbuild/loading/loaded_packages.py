"""The packages that one call of load_graph has loaded, and the facts that rests on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from modelbuild.errors import LoadError, ModelbuildError
from modelbuild.kept_errors import KeptErrors
from modelbuild.label import Label
from modelbuild.loading.declaration import PackageDeclaration
from modelbuild.loading.evaluator import EvaluatedPackage, Evaluator
from modelbuild.loading.package import Facts, Package, Target, package_str
from modelbuild.loading.rule_file import RuleClasses
from modelbuild.loading.source_file import BUILD_FILE, source_line
from modelbuild.loading.suggestion import did_you_mean
from modelbuild.loading.workspace import FOREIGN_BUILD_FILES, WORKSPACE_FILE, Workspace

PackageKey = tuple[str, str]
"""Repository and package."""

MANY_HINTS = 100
"""So many errors get a hint."""


class LoadedPackages:
    """Loads packages on demand, each once. messages: what `print` in BUILD files said.

    keep_going: a package with an error counts as one that is not there, and the error goes to `kept`.
    """

    def __init__(
        self,
        workspace: Workspace,
        evaluator: Evaluator,
        builtin: Mapping[str, str],
        *,
        keep_going: bool = False,
    ) -> None:
        self.workspace = workspace
        self._evaluator = evaluator
        self._classes = RuleClasses(workspace.root_of, builtin)
        self._packages: dict[PackageKey, Package | None] = {}
        self._files: set[str] = {os.path.join(workspace.root, WORKSPACE_FILE)}
        self._directories: set[str] = set()
        self._absent: set[str] = set()
        self._crossings: dict[PackageKey, bool] = {}
        self.messages: list[str] = []
        self._broken: dict[PackageKey, LoadError] = {}
        self._noted: set[PackageKey] = set()
        """Broken packages of which nobody was told."""
        self._known: dict[str, tuple[str, ...]] = {}
        self._hints = 0
        self.kept = KeptErrors(keep_going=keep_going)

    def get(self, key: PackageKey) -> Package | None:
        """A package that `ensure` was asked for; None when there is none."""
        return self._packages.get(key)

    def __iter__(self) -> Iterator[Package]:
        """All that were loaded."""
        return (package for package in self._packages.values() if package is not None)

    def target(self, label: Label) -> Target | None:
        """The target of a label that names one, or names an output of one; its package is loaded."""
        package = self._packages.get((label.repository, label.package))
        if package is None:
            return None
        return package.targets.get(label.name) or package.targets.get(package.generated.get(label.name, ""))

    def facts(self) -> Facts:
        """What everything so far rests on."""
        return Facts(
            tuple(sorted(self._files | self._classes.files)),
            tuple(sorted(self._directories)),
            tuple(sorted(self._absent)),
        )

    def below(self, package: str, repository: str) -> list[PackageKey]:
        """The packages at and below a directory; the directories listed to find them are facts."""
        listing = self.workspace.find_packages(package, repository)
        self._directories.update(listing.directories)
        return [(repository, found) for found in listing.packages]

    def is_package(self, package: str) -> bool:
        """Whether a package of the workspace has a BUILD file."""
        return self._exists(("", package))

    def _exists(self, key: PackageKey) -> bool:
        """Whether a package has a BUILD file; the answer is a fact."""
        path = self.workspace.build_file(key[1], key[0])
        found = self.workspace.is_package(key[1], key[0])
        (self._files if found else self._absent).add(path)
        return found

    def ensure(self, keys: Iterable[PackageKey], *, lenient: bool = False) -> None:
        """Load packages that are not loaded; those that do not exist are remembered as None.

        lenient: errors are only remembered, for whoever needs what is in such a package.
        """
        wanted = []
        errors: list[ModelbuildError] = []
        for key in dict.fromkeys(keys):
            if key in self._packages:
                if key in self._noted and not lenient:
                    self._noted.remove(key)
                    errors.append(self._broken[key])
                continue
            try:
                exists = self._exists(key)
            except LoadError:  # There is no such repository, and `missing` says so.
                exists = False
            if exists:
                wanted.append(key)
            else:
                self._packages[key] = None
        for evaluated in self._evaluated(wanted):
            self._files.update(evaluated.files)
            self._directories.update(evaluated.directories)
            self.messages += evaluated.messages
            root = self.workspace.root_of(evaluated.repository)
            try:
                package = PackageDeclaration(evaluated, root, self._classes, self.crosses).package()
            except LoadError as error:
                key = (evaluated.repository, evaluated.package)
                self._packages[key], self._broken[key] = None, error
                if lenient:
                    self._noted.add(key)
                else:
                    errors.append(error)
                continue
            self._packages[evaluated.repository, evaluated.package] = package
        self.kept.keep_all(errors)

    def broken(self, key: PackageKey) -> LoadError | None:
        """The error in a package, if that is why there is none."""
        return self._broken.get(key)

    def _evaluated(self, keys: Sequence[PackageKey]) -> Iterator[EvaluatedPackage]:
        try:
            yield from self._evaluator.evaluate(keys)
        except LoadError as error:
            error.source_line = source_line(self.workspace.root, error.location)
            raise

    def crosses(self, repository: str, package: str, name: str) -> str | None:
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

    def _spelling_hint(self, shown: str, repository: str) -> str | None:
        """A package whose name is close; for the first errors only, since it is looked for among them all."""
        self._hints += 1
        if self._hints > MANY_HINTS:
            return None
        if repository not in self._known:
            found = self.workspace.find_packages("", repository).packages
            self._known[repository] = tuple(package_str(repository, name) for name in found if name)
        return did_you_mean(shown, self._known[repository])

    def missing(self, repository: str, package: str) -> LoadError:
        """The error that there is no such package, or the error in it."""
        if (broken := self._broken.get((repository, package))) is not None:
            return broken
        shown = package_str(repository, package)
        try:
            directory = os.path.dirname(self.workspace.build_file(package, repository))
        except LoadError as error:
            return error
        if not repository and self.workspace.is_skipped(package):
            return LoadError(
                f"there is no package `{shown}`",
                notes=("its directory is ignored, or belongs to another workspace",),
            )
        if not os.path.isdir(directory):
            hint = self._spelling_hint(shown, repository)
            return LoadError(
                f"there is no package `{shown}`", notes=("there is no such directory",), hint=hint
            )
        notes = (f"its directory has no file `{BUILD_FILE}`",)
        if os.path.isdir(os.path.join(directory, BUILD_FILE)):
            notes = (f"`{BUILD_FILE}` is a directory there",)
        foreign = [n for n in FOREIGN_BUILD_FILES if os.path.isfile(os.path.join(directory, n))]
        hint = f"it has `{foreign[0]}`, which modelbuild does not read; rename it" if foreign else None
        return LoadError(f"there is no package `{shown}`", notes=notes, hint=hint)
