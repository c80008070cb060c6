"""LockFile: what a lock says, free of what does not matter in it: comments, order, spelling of names."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from modelbuild.digest import digest_bytes
from modelbuild.errors import AnalysisError, EnvironmentFailure, Location
from modelbuild.execution.distributions import normalise
from modelbuild.tool import Lock

_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?\s*==\s*(?P<version>[A-Za-z0-9.+!_-]+)\s*"
    r"(;\s*(?P<marker>.+?))?\s*$"
)
_HASH = re.compile(r"\s--hash[=\s](\S+)")
_HELD_BACK = re.compile(r"\bextra\s*==")
_COMMENT = re.compile(r"(^|\s)#.*$")
_ENVIRONMENT_SCHEMA = 1
"""Raise it when the same lock has to be installed in another way."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One line. marker: `python_version < "3.12"`, or nothing. line: where it stands in the file."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    line: int

    @property
    def requirement(self) -> str:
        """As an installer reads it; the same for every spelling of the line."""
        marker = f" ; {self.marker}" if self.marker else ""
        return f"{self.name}=={self.version}{marker}{''.join(f' --hash={each}' for each in self.hashes)}"

    @property
    def unconditional(self) -> str:
        """The same without the marker."""
        return replace(self, marker="").requirement

    @property
    def identity(self) -> str:
        """The version, and in short what else the line pins."""
        text = f"{self.version} ; {self.marker}" if self.marker else self.version
        if self.hashes:
            text += f" sha256:{digest_bytes(' '.join(self.hashes).encode()).sha256}"
        return text


@dataclass(frozen=True)
class LockFile:
    """A lock that was read. machine: `linux-x86_64`, of this machine."""

    lock: Lock
    pins: tuple[Pin, ...]
    machine: str

    @property
    def name(self) -> str:
        """Short, for people: `tvm/requirements.lock`."""
        return f"{self.lock.path.parent.name}/{self.lock.path.name}"

    @property
    def platform(self) -> str:
        """What it is installed for."""
        return self.lock.platform or self.machine

    @property
    def python_version(self) -> str:
        """`3.11`."""
        return self.lock.python_version or f"{sys.version_info.major}.{sys.version_info.minor}"

    @property
    def text(self) -> str:
        """The requirements file for the installer."""
        return "".join(f"{line}\n" for line in sorted(pin.requirement for pin in self.pins))

    @property
    def held_back(self) -> tuple[Pin, ...]:
        """Pins with an `extra` in their marker, which no installer takes by itself.

        They are what only some builds of another package require: of torch, that for CUDA.
        """
        return tuple(pin for pin in self.pins if _HELD_BACK.search(pin.marker))

    @cached_property
    def detail(self) -> Mapping[str, str]:
        """Name -> what is pinned, for keys and `explain`."""
        detail: dict[str, str] = {}
        for pin in sorted(self.pins, key=lambda pin: pin.requirement):
            before = detail.get(pin.name)
            detail[pin.name] = f"{before} or {pin.identity}" if before else pin.identity
        return detail

    @cached_property
    def digest(self) -> str:
        """The sha256 that names the environment: lock, platform and Python."""
        parts = [_ENVIRONMENT_SCHEMA, self.text, self.platform, self.python_version]
        return digest_bytes(json.dumps(parts).encode()).sha256

    def location(self, output: str) -> Location:
        """The line of the package that `output` of an installer speaks of first; else the file."""
        found = [(at, pin.line) for pin in self.pins if (at := _mention(pin.name, output)) is not None]
        return Location(str(self.lock.path), min(found)[1] if found else 0)

    def pin_at(self, line: int) -> Pin | None:
        """The pin of a line."""
        return next((pin for pin in self.pins if pin.line == line), None)


def read_lock(lock: Lock, machine: str) -> LockFile:
    """Raises EnvironmentFailure for a file that is not there, AnalysisError for a line that pins nothing."""
    path = str(lock.path)
    try:
        with open(path, encoding="utf-8-sig") as stream:  # Some editors write a mark.
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EnvironmentFailure(
            f"the lock `{path}` of a tool cannot be read: {cause}",
            hint=f"make it with `uv pip compile requirements.in -o {os.path.basename(path)}`",
        ) from error
    pins = tuple(_pin(line, number, path) for number, line in _lines(text))
    if not pins:
        raise AnalysisError(f"the lock `{path}` pins nothing", location=Location(path))
    return LockFile(lock, pins, machine)


def _lines(text: str) -> list[tuple[int, str]]:
    """Logical lines with the number of the first physical one: a backslash joins, `#` comments."""
    lines: list[tuple[int, str]] = []
    joined, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", raw).rstrip()
        start = start or number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        joined = (joined + line).strip()
        if joined:
            lines.append((start, joined))
        joined, start = "", 0
    if joined.strip():
        lines.append((start, joined.strip()))
    return lines


def _pin(line: str, number: int, path: str) -> Pin:
    hashes = tuple(sorted(_HASH.findall(line)))
    match = _PIN.match(_HASH.sub("", line).strip())
    if match is None:
        raise AnalysisError(
            "a lock holds `name==version` lines and nothing else",
            location=Location(path, number),
            source_line=line,
            hint="`uv pip compile requirements.in -o requirements.lock` pins everything; where packages come "
            "from is said by `find_links` in `modelbuild.toml`, or by UV_INDEX_URL",
        )
    marker = " ".join((match["marker"] or "").split())
    return Pin(normalise(match["name"]), match["version"], marker, hashes, number)


def _mention(name: str, text: str) -> int | None:
    """Where `text` speaks of the distribution `name`, in any spelling."""
    spelled = re.escape(name).replace(r"\-", "[-_.]+")
    match = re.search(
        rf"(?<![A-Za-z0-9_.-]){spelled}(?![A-Za-z0-9_]|-(?!\d)|\.(?=[A-Za-z]))", text, re.IGNORECASE
    )
    return match.start() if match else None
