"""Target patterns: what a person writes to name targets, as in Bazel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label

PatternKind = Literal["target", "package", "below"]
_RULES = "all"
_EVERYTHING = frozenset({"*", "all-targets"})


@dataclass(frozen=True, slots=True)
class TargetPattern:
    """A parsed pattern.

    kind: one `target`, all of a `package`, or all of the packages at and `below` one. files: whether a
    wildcard means files as well as rules. name: the target, or the wildcard's own word, which is a target
    if the package has one of that name.
    """

    text: str
    kind: PatternKind
    label: Label
    negative: bool = False
    files: bool = False


def parse_pattern(
    text: str, working_package: str = "", is_package: Callable[[str], bool] = lambda _: False
) -> TargetPattern:
    """Parse one pattern as typed in the directory of `working_package`.

    is_package answers for paths such as `targets/missions.py`, which name the file of the longest package.
    Raises LoadError when the text is no pattern.
    """
    negative = text.startswith("-")
    rest = text[1:] if negative else text
    if not rest:
        raise LoadError("a target pattern is empty")
    repository = ""
    if rest.startswith("@"):
        repository, separator, rest = rest[1:].partition("//")
        if not separator:
            raise LoadError(f"`{text}` is no target pattern", notes=("write `@name//package:target`",))
        rest = "//" + rest
    if not rest.startswith("//"):
        rest = _absolute(rest, working_package, is_package)
    path, colon, name = rest[2:].partition(":")
    if path == "..." or path.endswith("/..."):
        package = path[:-3].rstrip("/") if path != "..." else ""
        if colon and name != _RULES and name not in _EVERYTHING:
            raise LoadError(
                f"`{text}` is no target pattern",
                notes=("after `/...` only `:all`, `:*` and `:all-targets` have a meaning",),
            )
        label = _label(text, repository, package, name or _RULES)
        return TargetPattern(text, "below", label, negative, name in _EVERYTHING)
    if "..." in path.split("/"):
        raise LoadError(f"`{text}` is no target pattern", notes=("`...` must come last",))
    if colon and (name == _RULES or name in _EVERYTHING):
        label = _label(text, repository, path, name)
        return TargetPattern(text, "package", label, negative, name in _EVERYTHING)
    return TargetPattern(text, "target", _label(text, repository, rest[2:]), negative)


def _label(text: str, repository: str, path: str, wildcard: str = "") -> Label:
    """The label of `//path`, with a wildcard in place of its name if there is one."""
    prefix = f"@{repository}" if repository else ""
    try:
        label = parse_label(f"{prefix}//{path}:x" if wildcard else f"{prefix}//{path}")
    except LoadError as error:
        raise LoadError(f"`{text}` is no target pattern", notes=error.notes) from None
    return Label(label.repository, label.package, wildcard) if wildcard else label


def _absolute(text: str, working_package: str, is_package: Callable[[str], bool]) -> str:
    """A relative pattern in its absolute form."""
    if text.startswith(":"):
        return f"//{working_package}{text}"
    path, colon, name = text.partition(":")
    path = path.removeprefix("./").rstrip("/")
    joined = f"{working_package}/{path}" if working_package else path
    if colon or path == "..." or path.endswith("/..."):
        return f"//{joined}{colon}{name}"
    if is_package(joined):
        return f"//{joined}"
    segments = joined.split("/")
    for count in range(len(segments) - 1, 0, -1):
        package = "/".join(segments[:count])
        if is_package(package):
            return f"//{package}:{'/'.join(segments[count:])}"
    return f"//:{joined}"
