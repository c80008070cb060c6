"""Packages, targets and the target graph: what loading gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelbuild.errors import LoadError, Location, ModelbuildError
from modelbuild.label import Label
from modelbuild.loading.source_file import source_line
from modelbuild.loading.visibility import PackageGroup, Visibility
from modelbuild.rule import Rule


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer rested on, as sorted absolute paths.

    files: read, or found to be there. directories: listed. absent: found not to be there.
    """

    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One declared target.

    attributes: as written, without those that are None; a Select stands in a list. instance: the validated
    rule, or None when an attribute holds a Select. location: the call in the BUILD file; chain: the macro
    frames below it, outermost first. dependencies: labels in its attributes, each branch of each select
    included, in order. conditional: those that only some branches hold. conditions: labels of the select
    conditions. outputs: labels of the output files it
    declares by name. toolchain_types: what it may ask toolchains of.
    """

    label: Label
    rule: str
    rule_class: type[Rule]
    attributes: Mapping[str, Any] = field(repr=False)
    location: Location
    chain: tuple[Location, ...] = ()
    visibility: Visibility = ()
    testonly: bool = False
    tags: tuple[str, ...] = ()
    instance: Rule | None = field(default=None, repr=False)
    dependencies: tuple[Label, ...] = ()
    conditional: tuple[Label, ...] = ()
    conditions: tuple[Label, ...] = ()
    outputs: tuple[Label, ...] = ()
    toolchain_types: tuple[Label, ...] = ()
    root: str = field(default="", repr=False)

    def source_line(self) -> str | None:
        """The line of the BUILD file at `location`."""
        return source_line(self.root, self.location)

    @property
    def needs_platform(self) -> bool:
        """Whether the target itself means something else on another platform: a condition, a toolchain."""
        rule = self.rule_class
        return bool(
            self.conditions
            or self.toolchain_types
            or rule.needs_platform
            or (rule.is_skippable and self.attributes.get("target_compatible_with"))
        )

    @property
    def is_test(self) -> bool:
        """Whether `modelbuild test` runs it."""
        return self.rule_class.is_test

    @property
    def place(self) -> str:
        """Where it is declared, with the macro that did it, for notes of errors."""
        macro = next((frame.function for frame in self.chain if frame.function), "")
        return f"{self.location}, in macro `{macro}`" if macro else str(self.location)


@dataclass(frozen=True, slots=True, eq=False)
class Package:
    """One BUILD file. `path` is relative to its repository's `root`.

    exported: file name -> visibility, from `exports_files`. implicit: files that are not exported but are
    named by targets of the package. generated: output file name -> name of the target that makes it.
    """

    repository: str
    name: str
    path: str
    root: str = field(repr=False)
    targets: Mapping[str, Target] = field(repr=False)
    default_visibility: Visibility = ()
    exported: Mapping[str, Visibility] = field(default_factory=dict, repr=False)
    implicit: frozenset[str] = field(default_factory=frozenset, repr=False)
    generated: Mapping[str, str] = field(default_factory=dict, repr=False)
    groups: Mapping[str, PackageGroup] = field(default_factory=dict, repr=False)
    messages: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The package as labels name it, `//pkg`."""
        return package_str(self.repository, self.name)


@dataclass(frozen=True, slots=True)
class ConfigurationRoots:
    """What configuration starts from; all of it is loaded.

    platform: what is built for. default_platform: what a plain build takes. host: the machine that builds.
    toolchains: the registered `toolchain` targets, preferred ones first. defines: variables of `--define`.
    """

    platform: Label
    default_platform: Label
    host: Label
    toolchains: tuple[Label, ...] = ()
    defines: tuple[tuple[str, str], ...] = ()


BranchErrors = Mapping[tuple[Label, Label], LoadError]
"""(user, label in a branch of one of its selects) -> what is wrong with that; as in Bazel, it is an error
for who takes the branch."""


@dataclass(frozen=True, slots=True, eq=False)
class TargetGraph:
    """Everything that the requested targets need.

    targets: requested ones and their dependencies. sources: label -> absolute path. generated: label of an
    output file -> label of the target that makes it. requested: targets and files, in the order of the
    patterns, test suites replaced by their tests. packages: `//pkg` -> package. order: targets, after those
    that they need whatever branch of a select is taken. messages: what `print` in BUILD files said. roots:
    None when nothing asks for a platform. named: the requested targets that were named one by one, not by a
    wildcard. errors: what loading went on after. unbuildable: targets that were asked for and that those
    errors took away.
    """

    targets: Mapping[Label, Target] = field(repr=False)
    sources: Mapping[Label, str] = field(repr=False)
    generated: Mapping[Label, Label] = field(repr=False)
    requested: tuple[Label, ...]
    packages: Mapping[str, Package] = field(repr=False)
    facts: Facts = field(repr=False)
    order: tuple[Label, ...] = field(repr=False)
    messages: tuple[str, ...] = ()
    roots: ConfigurationRoots | None = None
    named: frozenset[Label] = frozenset()
    errors: tuple[ModelbuildError, ...] = ()
    unbuildable: tuple[Label, ...] = ()
    branch_errors: BranchErrors = field(default_factory=dict, repr=False)

    def owner(self, label: Label) -> Target | None:
        """The target that `label` names or that makes the file it names; None for a source file."""
        return self.targets.get(self.generated.get(label, label))


def package_str(repository: str, package: str) -> str:
    """`//pkg` or `@name//pkg`."""
    return f"@{repository}//{package}" if repository else f"//{package}"


def dependency_cycle(targets: Sequence[Target]) -> LoadError:
    """The error for targets of which each needs the next, and the last the first."""
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
