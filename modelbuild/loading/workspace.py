"""The workspace: its root, its settings in modelbuild.toml, and the packages below it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from modelbuild.errors import LoadError, Location, UsageError
from modelbuild.loading.repository import repository_root
from modelbuild.loading.source_file import BUILD_FILE, is_text, read_source
from modelbuild.loading.suggestion import did_you_mean

WORKSPACE_FILE = "modelbuild.toml"
OUTPUT_DIRECTORY = "modelbuild-out"
_CACHE_TAG = "CACHEDIR.TAG"
"""Marks a directory as a cache of any program, ours wherever --cache-dir put it: no packages there."""
FOREIGN_BUILD_FILES = ("BUILD.bazel", "BUILD")


@dataclass(frozen=True, slots=True)
class Settings:
    """The table [build] of modelbuild.toml, or of a profile.

    cache_dir: the local cache, relative to the root. jobs: actions at once; 0 means one per CPU.
    key_salt: part of every action key. ignore: directories, relative to the root, without packages.
    keep_going: build what can be built after a failure.
    cache_max_size: what the local cache is trimmed to, as in `50 GB`. platform: what to build for when no
    --platform is given; empty: this machine. toolchains: patterns of `toolchain` targets, best ones first.
    find_links: a directory, relative to the root, or a page with wheels for the environments of tools.
    offline: fetch no packages.
    """

    cache_dir: str = "cache"
    jobs: int = 0
    key_salt: str = ""
    ignore: tuple[str, ...] = ()
    keep_going: bool = False
    cache_max_size: str = ""
    platform: str = ""
    toolchains: tuple[str, ...] = ()
    find_links: str = ""
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The packages below a directory, and the absolute directories that were listed to find them."""

    packages: tuple[str, ...]
    directories: tuple[str, ...]


@dataclass(frozen=True)
class Workspace:
    """A directory that holds modelbuild.toml. `root` is absolute and free of symlinks."""

    root: str
    settings: Settings = field(default_factory=Settings)
    profiles: Mapping[str, Settings] = field(default_factory=dict)

    def with_profile(self, name: str) -> Workspace:
        """This workspace with the settings of [profile.NAME]. Raises UsageError."""
        if name not in self.profiles:
            raise UsageError(
                f"there is no profile `{name}` in `{WORKSPACE_FILE}`",
                hint=did_you_mean(name, self.profiles),
            )
        return replace(self, settings=self.profiles[name])

    @property
    def cache_dir(self) -> str:
        """The absolute path of the local cache."""
        return os.path.join(self.root, os.path.expanduser(self.settings.cache_dir))

    @property
    def skipped(self) -> frozenset[str]:
        """Absolute directories in which neither packages nor sources are looked for."""
        names = (OUTPUT_DIRECTORY, *self.settings.ignore)
        return frozenset((self.cache_dir, *(os.path.join(self.root, name) for name in names)))

    def root_of(self, repository: str) -> str:
        """The absolute directory of a repository; the workspace itself is "". Raises LoadError."""
        if not repository:
            return self.root
        return repository_root(repository)

    def build_file(self, package: str, repository: str = "") -> str:
        """The absolute path that the BUILD file of `package` has, if there is one."""
        return os.path.join(self.root_of(repository), package, BUILD_FILE)

    def is_package(self, package: str, repository: str = "") -> bool:
        """Whether `package` has a BUILD file and is not ignored."""
        if not os.path.isfile(self.build_file(package, repository)):
            return False
        return bool(repository) or not self.is_skipped(package)

    def is_skipped(self, package: str) -> bool:
        """Whether a directory of the workspace is ignored, or belongs to a workspace of its own."""
        skipped, directory = self.skipped, self.root
        for part in package.split("/") if package else ():
            directory = os.path.join(directory, part)
            if directory in skipped or os.path.isfile(os.path.join(directory, WORKSPACE_FILE)):
                return True
        return False

    def working_package(self, directory: str) -> str:
        """The package path of a directory, as relative patterns need it; "" outside the workspace."""
        relative = os.path.relpath(os.path.realpath(directory), self.root)
        return "" if relative == "." or relative.startswith("..") else relative.replace(os.sep, "/")

    def find_packages(self, below: str = "", repository: str = "") -> Listing:
        """All packages at and below a directory, sorted. Symlinks are followed."""
        packages: list[str] = []
        listed: list[str] = []
        root = self.root_of(repository)
        start = os.path.join(root, below) if below else root
        if os.path.isdir(start) and (repository or not self.is_skipped(below)):
            for package, directory, has_build_file in self._walk(start, below):
                listed.append(directory)
                if has_build_file:
                    packages.append(package)
        return Listing(tuple(sorted(packages)), tuple(sorted(listed)))

    def _walk(self, start: str, below: str) -> Iterator[tuple[str, str, bool]]:
        """Package path, absolute directory, whether it has a BUILD file."""
        skipped = self.skipped
        pending: list[tuple[str, str, tuple[str, ...]]] = [(below, start, (os.path.realpath(start),))]
        while pending:
            package, directory, ancestors = pending.pop()
            has_build_file = False
            below_here: list[tuple[str, str, tuple[str, ...]]] = []
            nested = False
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        name = entry.name
                        if name == BUILD_FILE:
                            has_build_file = entry.is_file()
                        elif name in {WORKSPACE_FILE, _CACHE_TAG}:
                            nested |= directory != self.root and entry.is_file()
                        if name.startswith(".") or entry.path in skipped or not is_text(name):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            real = os.path.join(ancestors[-1], name)
                        elif entry.is_symlink() and os.path.isdir(entry.path):
                            real = os.path.realpath(entry.path)
                        else:
                            continue
                        if real not in ancestors:
                            path = f"{package}/{name}" if package else name
                            below_here.append((path, entry.path, (*ancestors, real)))
            except OSError as error:
                raise LoadError(f"`{directory}` cannot be listed: {error.strerror}") from None
            yield package, directory, has_build_file and not nested
            if not nested:
                pending += below_here


def find_workspace(start: str) -> Workspace:
    """The workspace that holds directory `start`. Raises UsageError, or LoadError for bad settings."""
    directory = os.path.realpath(start)
    while True:
        if os.path.isfile(os.path.join(directory, WORKSPACE_FILE)):
            return open_workspace(directory)
        parent = os.path.dirname(directory)
        if parent == directory:
            raise UsageError(
                f"`{start}` is in no workspace: neither it nor a directory above holds `{WORKSPACE_FILE}`",
                hint="`modelbuild init DIR` makes a workspace",
            )
        directory = parent


def open_workspace(root: str) -> Workspace:
    """The workspace with modelbuild.toml in `root`. Raises LoadError for bad settings."""
    root = os.path.realpath(root)
    text = read_source(os.path.join(root, WORKSPACE_FILE), WORKSPACE_FILE, "file")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        message = str(error).partition(" (at ")[0]
        line, column = (int(place.group(1)), int(place.group(2))) if place else (0, 0)
        raise _error(f"not TOML: {message[:1].lower()}{message[1:]}", text, line, column) from None
    _check_keys(document, ("build", "profile"), "", text)
    settings = _settings(document.get("build", {}), Settings(), "build", text)
    profiles = document.get("profile", {})
    if not isinstance(profiles, dict):
        raise _error("`profile` must hold tables: `[profile.NAME]`", text, _line_of("profile", text))
    return Workspace(
        root,
        settings,
        {n: _settings(table, settings, f"profile.{n}", text) for n, table in profiles.items()},
    )


def _settings(table: Any, base: Settings, name: str, text: str) -> Settings:
    if not isinstance(table, dict):
        raise _error(f"`{name}` must be a table: `[{name}]`", text, _line_of(name, text))
    _check_keys(table, tuple(f.name for f in fields(Settings)), name, text)
    values: dict[str, Any] = {}
    for key, value in table.items():
        default = getattr(Settings(), key)
        line = _line_of(key, text, name)
        if isinstance(default, tuple):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise _error(f"`{key}` must be a list of strings", text, line)
            values[key] = tuple(item if key == "toolchains" else item.strip("/") for item in value)
        elif type(value) is not type(default):
            expected = {str: "a string", int: "a whole number", bool: "true or false"}[type(default)]
            raise _error(f"`{key}` must be {expected}", text, line)
        else:
            values[key] = value
    if values.get("jobs", 0) < 0:
        raise _error("`jobs` must not be negative", text, _line_of("jobs", text, name))
    if not values.get("cache_dir", "x"):
        raise _error("`cache_dir` is empty", text, _line_of("cache_dir", text, name))
    return replace(base, **values)


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], name: str, text: str) -> None:
    for key in table:
        if key not in known:
            what = f"setting `{key}` in `[{name}]`" if name else f"table `{key}`"
            location_line = _line_of(key, text, name)
            hint = did_you_mean(key, known) or f"known: {', '.join(f'`{k}`' for k in known)}"
            raise _error(f"unknown {what}", text, location_line, hint=hint)


def _line_of(key: str, text: str, table: str = "") -> int:
    """The line that sets `key`, best effort: errors only."""
    inside = not table
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            header = stripped.strip("[] ")
            inside = header == table or not table
            if header == key or header.startswith(f"{key}."):
                return number
        if inside and re.match(rf"\"?{re.escape(key)}\"?\s*=", stripped):
            return number
    return 0


def _error(message: str, text: str, line: int, column: int = 0, *, hint: str | None = None) -> LoadError:
    lines = text.splitlines()
    source_line = lines[line - 1] if 0 < line <= len(lines) else None
    location = Location(WORKSPACE_FILE, line, column)
    return LoadError(message, location=location, hint=hint, source_line=source_line)
