"""Visibility: which packages may depend on a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label

Visibility = tuple[Label, ...]
"""Labels as written in `visibility`; none of them means private."""

PUBLIC = Label("", "visibility", "public")
PRIVATE = Label("", "visibility", "private")
_LEGACY_PUBLIC = Label("", "visibility", "legacy_public")


@dataclass(frozen=True, slots=True)
class PackagePattern:
    """One entry of a package_group: `//pkg`, `//pkg/...`, or either with a `-` before it."""

    negative: bool
    repository: str
    package: str
    subpackages: bool

    def matches(self, label: Label) -> bool:
        """Whether the package of `label` is meant."""
        if label.repository != self.repository:
            return False
        return label.package == self.package or (
            self.subpackages and (not self.package or label.package.startswith(f"{self.package}/"))
        )


@dataclass(frozen=True, slots=True)
class PackageGroup:
    """A named set of packages."""

    label: Label
    packages: tuple[PackagePattern, ...]
    includes: tuple[Label, ...] = ()

    def holds(self, label: Label, group_of: Callable[[Label], PackageGroup | None]) -> bool:
        """Whether the package of `label` is in the group, or in one that it includes."""
        seen = {self.label}
        pending = [self]
        while pending:
            group = pending.pop()
            matched = [pattern for pattern in group.packages if pattern.matches(label)]
            if matched and not any(pattern.negative for pattern in matched):
                return True
            for included in group.includes:
                other = group_of(included)
                if other is not None and included not in seen:
                    seen.add(included)
                    pending.append(other)
        return False


def parse_visibility(texts: Sequence[object], package: str, repository: str) -> Visibility:
    """The labels of a `visibility` list. Raises LoadError without a place."""
    labels = []
    for text in texts:
        if not isinstance(text, str):
            raise LoadError(f"`visibility` holds labels, not {type(text).__name__}")
        label = parse_label(text, package, repository)
        if label.package == "visibility":
            label = Label("", "visibility", label.name)
            if label not in {PUBLIC, PRIVATE, _LEGACY_PUBLIC}:
                raise LoadError(
                    f"`{text}` is no visibility",
                    hint="`//visibility:public`, `//visibility:private`, `//pkg:__pkg__`, "
                    "`//pkg:__subpackages__` or the label of a package_group",
                )
        labels.append(label)
    if len(labels) > 1 and (PUBLIC in labels or PRIVATE in labels):
        raise LoadError("`//visibility:public` and `//visibility:private` stand alone")
    return tuple(labels)


def parse_package_pattern(text: object, repository: str) -> PackagePattern:
    """One entry of `packages` of a package_group. Raises LoadError without a place."""
    if not isinstance(text, str):
        raise LoadError(f"`packages` holds strings, not {type(text).__name__}")
    negative = text.startswith("-")
    path = text[1:] if negative else text
    if not path.startswith("//") or ":" in path:
        raise LoadError(f"`{text}` is no package", hint="write `//pkg` or `//pkg/...`")
    package = path[2:]
    subpackages = package == "..." or package.endswith("/...")
    if subpackages:
        package = package[:-3].rstrip("/")
    parse_label(f"//{package}:x", "", repository)
    return PackagePattern(negative, repository, package, subpackages)


def group_labels(visibility: Visibility) -> tuple[Label, ...]:
    """The package_groups that a visibility names."""
    return tuple(
        label
        for label in visibility
        if label.package != "visibility" and label.name not in {"__pkg__", "__subpackages__"}
    )


def is_visible(
    visibility: Visibility, target: Label, user: Label, group_of: Callable[[Label], PackageGroup | None]
) -> bool:
    """Whether a target of the package of `user` may depend on `target`."""
    if (user.repository, user.package) == (target.repository, target.package):
        return True
    for label in visibility:
        if label in {PUBLIC, _LEGACY_PUBLIC}:
            return True
        if label.package == "visibility":
            continue
        if label.name in {"__pkg__", "__subpackages__"}:
            subpackages = label.name == "__subpackages__"
            if PackagePattern(False, label.repository, label.package, subpackages).matches(user):
                return True
            continue
        group = group_of(label)
        if group is not None and group.holds(user, group_of):
            return True
    return False
