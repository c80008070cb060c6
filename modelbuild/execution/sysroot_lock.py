"""SysrootLock: the Debian packages that make up an emulated device's file system.

    suite = "bookworm"                  # of Debian
    architecture = "arm64"              # as Debian calls it
    emulator = "qemu-aarch64-static"    # a program of this machine
    cpu = "cortex-a53"                  # as the emulator calls it
    python = "3.11"                     # of the packages below
    packages = ["libc6", ...]           # all of them: nothing else is installed
    [links]                             # path -> target: what packages would set up when they are installed
    [files]                             # path -> content: what a device's kernel says of it

A version may be pinned, `libc6=2.36-9+deb12u14`; a stable suite of Debian changes versions for security only,
and then drops the old ones.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

from modelbuild.digest import digest_bytes
from modelbuild.errors import AnalysisError, EnvironmentFailure, Location

_SYSROOT_SCHEMA = 1
"""Raise it when the same lock has to be unpacked in another way."""

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?\Z")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,=+-]*\Z")
_VERSION = re.compile(r"3\.\d+\Z")


@dataclass(frozen=True)
class SysrootLock:
    """A lock that was read. Only `path` and what follows from it is not in `digest`."""

    path: Path
    suite: str
    architecture: str
    emulator: str
    cpu: str
    python: str
    packages: tuple[str, ...]
    links: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def name(self) -> str:
        """Short, for people: `runners/aarch64.sysroot`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def identity(self) -> dict[str, str]:
        """All that the file system is made of, for keys and `explain`."""
        said = {name: str(getattr(self, name)) for name in ("suite", "architecture", "cpu", "python")}
        packages = {name: version or "current" for name, version in self.versions.items()}
        links = {f"link {path}": target for path, target in self.links.items()}
        files = {f"file {path}": digest_bytes(text.encode()).sha256 for path, text in self.files.items()}
        return {**said, **packages, **links, **files}

    @property
    def versions(self) -> dict[str, str]:
        """Package -> its pinned version, or nothing."""
        return {name: version for name, _, version in (each.partition("=") for each in self.packages)}

    @cached_property
    def digest(self) -> str:
        """The sha256 that names the unpacked file system."""
        identity = [_SYSROOT_SCHEMA, self.identity]
        return digest_bytes(json.dumps(identity, sort_keys=True).encode()).sha256


def read_sysroot_lock(path: Path) -> SysrootLock:
    """Raises EnvironmentFailure for a file that is not there, AnalysisError for one that is no such lock."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EnvironmentFailure(
            f"the sysroot lock `{path}` cannot be read: {error.strerror}",
            hint="a `device_runner` of kind `qemu-user` names it as `sysroot`",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad(path, f"it is no TOML: {error}") from error
    fields = {"links": {}, "files": {}, **data}
    known = [name for name in get_type_hints(SysrootLock) if name != "path"]
    for name in fields:
        if name not in known:
            raise _bad(path, f"`{name}` means nothing", f"it says {', '.join(known)}")
    for name in known:
        if name not in fields:
            raise _bad(path, f"it does not say `{name}`")
    for name in ("suite", "architecture", "emulator", "cpu"):
        if not isinstance(fields[name], str) or not _WORD.match(fields[name]):
            raise _bad(path, f"`{name}` is `{fields[name]}`")
    if not isinstance(fields["python"], str) or not _VERSION.match(fields["python"]):
        raise _bad(path, f"`python` is `{fields['python']}`", 'write "3.11"')
    packages = fields["packages"]
    if not isinstance(packages, list) or not packages:
        raise _bad(path, "`packages` is no list of packages")
    for each in packages:
        if not isinstance(each, str) or not _PACKAGE.match(each):
            raise _bad(path, f"`{each}` is not the name of a Debian package")
    for table in ("links", "files"):
        _check_paths(path, table, fields[table])
    return SysrootLock(path, **{**fields, "packages": tuple(packages)})


def _check_paths(path: Path, table: str, entries: Any) -> None:
    if not isinstance(entries, dict) or not all(isinstance(each, str) for each in entries.values()):
        raise _bad(path, f"`{table}` is no table of texts")
    for name in entries:
        if name.startswith("/") or ".." in name.split("/"):
            raise _bad(path, f"`{name}` in `{table}` leads out of the file system", "write `proc/cpuinfo`")


def _bad(path: Path, why: str, hint: str | None = None) -> AnalysisError:
    return AnalysisError(
        f"`{path.name}` is no lock of a sysroot: {why}", location=Location(str(path)), hint=hint
    )
