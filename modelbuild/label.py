"""Labels: the names of targets and files.

`//targets:teacher` is target `teacher` of package `targets`; `//targets` is short for
`//targets:targets`; inside a package `:teacher` or `teacher` will do. `@name//pkg:target` names a
target of an installed repository. Same grammar as Bazel's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelbuild.errors import LoadError

_PACKAGE = re.compile(r"[ !-9;-\[\]-~]*\Z")
"""As Bazel's: ASCII that can be printed, but `:` and a backslash."""
_TARGET = re.compile(r"[^\x00-\x1f\x7f-\x9f:\\\u2028\u2029\ud800-\udfff]+\Z")
"""As Bazel's: anything but control characters, `:` and a backslash."""
# Most of all labels, in one step: loading ten thousand targets parses tens of thousands.
_SIMPLE_PACKAGE = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*)?\Z")
_SIMPLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")
_REPOSITORY = re.compile(r"^[A-Za-z][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """The full name of a target or file. `repository` is empty for the workspace itself."""

    repository: str
    package: str
    name: str

    def __str__(self) -> str:
        """The unambiguous form, `//package:name`."""
        prefix = f"@{self.repository}" if self.repository else ""
        return f"{prefix}//{self.package}:{self.name}"

    @property
    def path(self) -> str:
        """The file path this label would have if it is a source file, relative to its repository."""
        return f"{self.package}/{self.name}" if self.package else self.name

    def sibling(self, name: str) -> Label:
        """The label `name` in the same package."""
        return Label(self.repository, self.package, name)


def parse_label(text: str, package: str = "", repository: str = "") -> Label:
    """Parse `text` as written in `package` of `repository`.

    Raises LoadError, without a location, when the text is no label.
    """
    rest = text
    if rest.startswith("@"):
        head, separator, rest = rest[1:].partition("//")
        if not separator or (head and not _REPOSITORY.match(head)):
            raise _invalid(text, "a repository is written `@name//package:target`")
        repository = head
        rest = "//" + rest
    if rest.startswith("//"):
        package, separator, name = rest[2:].partition(":")
        if not separator:
            name = package.rpartition("/")[2]
    elif rest.startswith(":"):
        name = rest[1:]
    else:
        name = rest
        if ":" in name:
            raise _invalid(text, "a label with a package starts with `//`")
    if not _SIMPLE_PACKAGE.match(package):
        _check_package(text, package)
    if not _SIMPLE_NAME.match(name):
        _check_name(text, name)
    return Label(repository, package, name)


def _check_package(text: str, package: str) -> None:
    if not _PACKAGE.match(package):
        raise _invalid(text, f"`{package}` is not a package name")
    if package.startswith("/") or package.endswith("/") or "//" in package:
        raise _invalid(text, "a package name has no leading, trailing or double `/`")
    if any(part and not part.strip(".") for part in package.split("/")):
        raise _invalid(text, "a package name holds no `.`, `..` or `...` segment")


def _check_name(text: str, name: str) -> None:
    if not name:
        raise _invalid(text, "the target name is empty")
    if not _TARGET.match(name):
        raise _invalid(text, f"`{name}` is not a target name")
    if name.startswith("/") or name.endswith("/") or "//" in name:
        raise _invalid(text, "a target name has no leading, trailing or double `/`")
    if any(part in (".", "..") for part in name.split("/")):
        raise _invalid(text, "a target name holds no `.` or `..` segment")


def _invalid(text: str, why: str) -> LoadError:
    return LoadError(f"`{text}` is not a label", notes=(why,))
