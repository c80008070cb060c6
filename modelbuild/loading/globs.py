"""glob(): Bazel's file patterns, matched inside one package."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from modelbuild.errors import LoadError
from modelbuild.loading.source_file import BUILD_FILE, is_text

_Matcher = Callable[[str], bool]


@dataclass(slots=True)
class PackageFiles:
    """The files below one package, listed once and as far as patterns ask.

    root: absolute path of the package. skip: absolute paths that are never entered. listed: the absolute
    directories that answers rest on. links: the absolute symlinks whose ends they rest on, too, be there a
    file or nothing.
    """

    root: str
    skip: frozenset[str] = frozenset()
    listed: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    _entries: dict[str, tuple[tuple[str, bool], ...]] = field(default_factory=dict)

    def glob(
        self, include: Iterable[str], exclude: Iterable[str] = (), *, directories: bool = False
    ) -> list[str]:
        """The paths, relative to the package and sorted, that match. Raises LoadError for a bad pattern."""
        excluded = [_path_matcher(pattern) for pattern in exclude]
        found: set[str] = set()
        for pattern in include:
            segments = check_pattern(pattern)
            if not any(_is_wild(segment) for segment in segments):
                self._literal(segments, found, directories=directories)
                continue
            matchers = tuple(None if s == "**" else _segment_matcher(s) for s in segments)
            self._walk("", matchers, found, directories, (os.path.realpath(self.root),))
        return sorted(path for path in found if not any(match(path) for match in excluded))

    def _literal(self, segments: list[str], found: set[str], *, directories: bool) -> None:
        """A pattern without wildcards is looked up like the others: through the listings."""
        directory = ""
        for position, segment in enumerate(segments):
            entry = next((e for e in self._list(directory) if e[0] == segment), None)
            if entry is None:
                return
            directory = f"{directory}/{segment}" if directory else segment
            last = position == len(segments) - 1
            if last and (directories or not entry[1]):
                found.add(directory)
            elif not last and (not entry[1] or self._is_package(directory)):
                return

    def _walk(
        self,
        directory: str,
        matchers: tuple[_Matcher | None, ...],
        found: set[str],
        directories: bool,
        ancestors: tuple[str, ...],
    ) -> None:
        head, rest = matchers[0], matchers[1:]
        if head is None and rest:
            self._walk(directory, rest, found, directories, ancestors)
        for name, is_directory in self._list(directory):
            if head is not None and not head(name):
                continue
            path = f"{directory}/{name}" if directory else name
            if not is_directory:
                if not rest:
                    found.add(path)
                continue
            if self._is_package(path):
                continue
            if not rest and directories:
                found.add(path)
            if rest or head is None:
                real = os.path.realpath(os.path.join(self.root, path))
                if real in ancestors:  # a symlink that leads back up
                    continue
                below = matchers if head is None else rest
                self._walk(path, below, found, directories, (*ancestors, real))

    def _is_package(self, directory: str) -> bool:
        full = os.path.join(self.root, directory)
        if full in self.skip:
            return True
        return any(name == BUILD_FILE and not is_dir for name, is_dir in self._list(directory))

    def _list(self, directory: str) -> tuple[tuple[str, bool], ...]:
        """Name and whether it is a directory, of each entry; symlinks are followed."""
        known = self._entries.get(directory)
        if known is not None:
            return known
        full = os.path.join(self.root, directory) if directory else self.root
        self.listed.add(full)
        try:
            with os.scandir(full) as entries:
                listing = tuple(sorted(self._seen(entries)))
        except OSError as error:
            raise LoadError(f"`{full}` cannot be listed: {error.strerror}") from error
        self._entries[directory] = listing
        return listing

    def _seen(self, entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[str, bool]]:
        for entry in entries:
            if not is_text(entry.name):
                continue
            if not entry.is_symlink():
                yield entry.name, entry.is_dir()
            elif os.path.isdir(entry.path):
                yield entry.name, True
            else:
                self.links.add(entry.path)
                if os.path.exists(entry.path):  # As in Bazel, a link that leads nowhere is no file.
                    yield entry.name, False


def check_pattern(pattern: object) -> list[str]:
    """The segments of a glob pattern. Raises LoadError, without a place, for a bad one."""
    if not isinstance(pattern, str):
        raise LoadError(f"a glob pattern is a string, not {type(pattern).__name__}")
    if not pattern:
        raise LoadError("a glob pattern is empty")
    if pattern.startswith("/"):
        raise LoadError(f"glob pattern `{pattern}` is absolute", hint="patterns start in the package")
    segments = pattern.split("/")
    for segment in segments:
        if segment in {"", ".", ".."}:
            what = f"segment `{segment}`" if segment else "an empty segment"
            raise LoadError(f"glob pattern `{pattern}` holds {what}")
        if "?" in segment:
            raise LoadError(f"glob pattern `{pattern}` holds `?`, which is no wildcard")
        if "**" in segment and segment != "**":
            raise LoadError(f"glob pattern `{pattern}`: `**` must be a segment of its own")
    return segments


def _is_wild(segment: str) -> bool:
    return "*" in segment


def _segment_matcher(segment: str) -> _Matcher:
    """A name that starts with a dot is matched by `*` alone or by a pattern with that dot, as in Bazel."""
    if segment == "*":
        return lambda _: True
    if not _is_wild(segment):
        return segment.__eq__
    expression = re.compile("[^/]*".join(re.escape(part) for part in segment.split("*")))
    hidden = segment.startswith(".")
    return lambda name: (hidden or not name.startswith(".")) and expression.fullmatch(name) is not None


def _path_matcher(pattern: str) -> _Matcher:
    segments = check_pattern(pattern)
    matchers = tuple(None if s == "**" else _segment_matcher(s) for s in segments)
    if None not in matchers and len(matchers) == 1 and matchers[0] is not None:
        single = matchers[0]
        return lambda path: "/" not in path and single(path)

    def matches(parts: list[str], at: tuple[_Matcher | None, ...]) -> bool:
        if not at:
            return not parts
        head = at[0]
        if head is None:
            if len(at) == 1:
                return bool(parts)
            return any(matches(parts[skip:], at[1:]) for skip in range(len(parts) + 1))
        return bool(parts) and head(parts[0]) and matches(parts[1:], at[1:])

    return lambda path: matches(path.split("/"), matchers)
