"""Distributions: what is installed, read from the metadata files directly.

importlib.metadata takes 41 ms to import and parses every file with the email package; a build needs the
name, version, requirements and top-level packages of a few dozen distributions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from modelbuild.errors import EnvironmentFailure

_SEPARATORS = re.compile(r"[-_.]+")
_DIST_INFO = (".dist-info", ".egg-info")

TERMINAL_ONLY = frozenset(
    {
        "annotated-doc",
        "click",
        "colorama",
        "markdown-it-py",
        "mdurl",
        "pygments",
        "rich",
        "shellingham",
        "tqdm",
        "typer",
    }
)
"""They parse command lines and draw on terminals. Others require them for their own commands (transformers
requires typer, which requires rich), and an upgrade must not retrain a model. A tool can declare one."""


@dataclass(frozen=True)
class Distribution:
    """One installed distribution. metadata: the path of its METADATA file."""

    name: str
    version: str
    requires: tuple[str, ...]
    metadata: str

    @cached_property
    def packages(self) -> frozenset[str]:
        """The top-level names that can be imported from it."""
        folder = os.path.dirname(self.metadata)
        found: set[str] = set()
        record = _read(os.path.join(folder, "RECORD"))
        for line in record.splitlines():
            path = line.rpartition(",")[0].rpartition(",")[0].strip('"')
            top, slash, _ = path.partition("/")
            if top in ("", "..", "__pycache__") or top.endswith(_DIST_INFO) or top.endswith(".data"):
                continue
            if slash:
                found.add(top)
            elif top.endswith((".py", ".so")):
                found.add(top.partition(".")[0])
        found.update(_read(os.path.join(folder, "top_level.txt")).split())
        return frozenset(found or {self.name.replace("-", "_")})


@dataclass(frozen=True, slots=True)
class Closure:
    """Declared distributions and everything they require, by normalised name."""

    members: dict[str, Distribution] = field(default_factory=dict)

    @property
    def versions(self) -> dict[str, str]:
        """Name -> version, sorted."""
        return {name: self.members[name].version for name in sorted(self.members)}

    def provides(self, package: str) -> bool:
        """Whether a member has the top-level package."""
        return any(package in each.packages for each in self.members.values())


class InstalledDistributions:
    """What lies in some site-packages directories; earlier ones win. Read once, lazily."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(folders)
        self._paths: dict[str, str] | None = None
        self._read: dict[str, Distribution] = {}

    def find(self, name: str) -> Distribution | None:
        """The installed distribution `name`, in any spelling."""
        wanted = normalise(name)
        if wanted not in self._read:
            path = self._index().get(wanted)
            if path is None:
                return None
            self._read[wanted] = _parse(path)
        return self._read[wanted]

    def closure(self, names: Iterable[str]) -> Closure:
        """Everything that installing `names` needs here. Raises EnvironmentFailure for a missing one.

        A requirement of a member that is not installed is left out: pip would have said so, and a tool
        that runs without it does not depend on it. TERMINAL_ONLY ones are left out unless declared.
        """
        from packaging.requirements import Requirement  # noqa: PLC0415 - 20 ms that a warm build does not pay

        members: dict[str, Distribution] = {}
        extras_done: dict[str, set[str]] = {}
        pending: list[tuple[str, frozenset[str], bool]] = []
        for text in names:
            declared = Requirement(text)
            pending.append((declared.name, frozenset(declared.extras), True))
        while pending:
            name, extras, is_declared = pending.pop()
            key = normalise(name)
            found = self.find(name)
            if key in TERMINAL_ONLY and not is_declared:
                continue
            if found is None:
                if is_declared:
                    raise EnvironmentFailure(
                        f"a tool needs the distribution `{name}`, which is not installed",
                        hint="pip install 'modelbuild[models]'",
                    )
                continue
            done = extras_done.setdefault(key, set())
            fresh = set(extras) - done
            if key in members and not fresh:
                continue
            members[key] = found
            done |= fresh
            for text in found.requires:
                needed = Requirement(text)
                chosen = [{"extra": extra} for extra in ("", *sorted(done))]
                if needed.marker is None or any(needed.marker.evaluate(each) for each in chosen):
                    pending.append((needed.name, frozenset(needed.extras), False))
        return Closure(members)

    def owners(self, package: str) -> list[str]:
        """The installed distributions that have the top-level package. Reads them all; for errors only."""
        found = (self.find(name) for name in self._index())
        return sorted(each.name for each in found if each is not None and package in each.packages)

    def _index(self) -> dict[str, str]:
        if self._paths is None:
            self._paths = {}
            for folder in self._folders:
                try:
                    names = os.listdir(folder)
                except OSError:
                    continue
                for name in names:
                    if not name.endswith(_DIST_INFO):
                        continue
                    stem = name.rpartition(".")[0].partition("-")[0]
                    path = os.path.join(folder, name)
                    if os.path.isdir(path):
                        path = os.path.join(path, "METADATA" if name.endswith(".dist-info") else "PKG-INFO")
                    if os.path.isfile(path):
                        self._paths.setdefault(normalise(stem), path)
        return self._paths


def normalise(name: str) -> str:
    """PEP 503: `Foo._-Bar` -> `foo-bar`."""
    return _SEPARATORS.sub("-", name).lower()


def _parse(path: str) -> Distribution:
    name = version = ""
    requires: list[str] = []
    for line in _read(path).splitlines():
        if not line:
            break  # The body is the description.
        key, colon, value = line.partition(":")
        if not colon or line[0].isspace():
            continue
        match key.lower():
            case "name":
                name = value.strip()
            case "version":
                version = value.strip()
            case "requires-dist":
                requires.append(value.strip())
    return Distribution(normalise(name), version, tuple(requires), path)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
