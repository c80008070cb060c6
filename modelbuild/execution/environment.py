"""ToolIdentities: what a tool is, as a digest, so that another torch reruns what ran torch and no more.

A Python tool is its source files and the name==version of every distribution it can import: of those it
declares and what they require, or of the lock of its own environment. A shell command is bash and the
programs of /usr/bin that its words name; nothing else can be known of it.

Reading all that takes longer than a null build may, so answers are kept in the cache directory with the
stat of every file they rest on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import site
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import modelbuild
from modelbuild.digest import digest_bytes, digest_file
from modelbuild.errors import AnalysisError, Location
from modelbuild.execution.distributions import Closure, InstalledDistributions
from modelbuild.execution.host_program import PROGRAM_FOLDERS, find_program, parse_program
from modelbuild.execution.lock_file import read_lock
from modelbuild.execution.sysroot import find_emulator
from modelbuild.execution.sysroot_lock import read_sysroot_lock
from modelbuild.execution.tool_sources import ToolSources, read_tool_sources
from modelbuild.runner import Runner
from modelbuild.tool import Lock, PythonTool, ShellTool, Tool, TreeTool

_SCHEMA = 1
_BUILTIN_VERSION = "1"
"""Raise it when WriteTool or TreeTool makes something else of the same parameters."""

_WORDS = re.compile(r"[A-Za-z0-9_./+\[-]+")
_RACY_NS = 50_000_000
"""A file may change again without changing its mtime for as long as the file system's clock ticks."""

Stat = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ToolIdentity:
    """digest: sha256 of `detail`. detail: `files`, `python`, `machine`, `distributions` or `lock`, and, for
    tools that name some, `programs` and `lock of NAME`; for those of a device `runner` and `sysroot`; for
    `explain`.

    facts: the paths this rests on; while all of them stat the same, so does it.
    """

    digest: str
    detail: Mapping[str, Any]
    facts: tuple[str, ...]


class ToolIdentities:
    """Computes identities; remembers them in `<cache>/tool_identities.json`. Thread-safe."""

    def __init__(
        self,
        cache_dir: str | None = None,
        *,
        site_packages: Sequence[str] | None = None,
        toolkit: str | None = None,
        machine: str | None = None,
    ) -> None:
        """cache_dir: None to remember nothing. The rest is for tests: what the build's own Python says."""
        self._file = os.path.join(cache_dir, "tool_identities.json") if cache_dir else None
        self._folders = tuple(site.getsitepackages() if site_packages is None else site_packages)
        package = os.path.dirname(os.path.abspath(modelbuild.__file__))
        self._toolkit = toolkit or os.path.join(package, "toolkit")
        self._installed = InstalledDistributions(self._folders)
        self._machine = machine or machine_name()
        self._python = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._lock = threading.RLock()
        self._stats: dict[str, Stat | None] = {}
        self._tools: dict[tuple[PythonTool, Runner | None], ToolIdentity] = {}
        self._shells: dict[frozenset[str], ToolIdentity] = {}
        self._programs: dict[str, str | None] = {}
        self._stored: dict[str, Any] | None = None
        self._dirty = False

    def identity(self, tool: Tool, params: Mapping[str, Any], runner: Runner | None = None) -> ToolIdentity:
        """The identity of `tool` as an action with `params` runs it, on the device behind `runner` if any.

        Raises AnalysisError for an import that is not declared, EnvironmentFailure for a distribution or a
        program that is not installed, and for a lock that is not there.
        """
        with self._lock:
            if isinstance(tool, ShellTool):
                return self._shell(str(params["command"]))
            if isinstance(tool, PythonTool):
                key = (tool, replace(runner, address="") if runner else None)
                if key not in self._tools:
                    self._tools[key] = self._python_tool(tool, runner)
                return self._tools[key]
            name = "tree" if isinstance(tool, TreeTool) else "write"
            return _identify({"builtin": f"{name}-{_BUILTIN_VERSION}"}, ())

    def changed(self, tool: Tool, params: Mapping[str, Any], runner: Runner | None = None) -> list[str]:
        """The files of `tool` that are not what they were when its identity was taken.

        Folders are left out: what appears beside a tool while it runs is not what it was loaded from.
        """
        with self._lock:
            paths = self.identity(tool, params, runner).facts
            known = [(path, self._stats[path]) for path in paths if path in self._stats]
        return [path for path, stat in known if stat != _stat(path) and not os.path.isdir(path)]

    def save(self) -> None:
        """Write what was found out; a cache that cannot be written is no error here."""
        with self._lock:
            if not self._dirty or self._file is None or self._stored is None:
                return
            self._dirty = False
            temporary = f"{self._file}.{os.getpid()}"
            with contextlib.suppress(OSError):
                with open(temporary, "w", encoding="utf-8") as stream:
                    json.dump(self._stored, stream, separators=(",", ":"))
                os.replace(temporary, self._file)

    def _python_tool(self, tool: PythonTool, runner: Runner | None) -> ToolIdentity:
        source = os.path.abspath(tool.source)
        named = [[name, str(lock.path), lock.platform, lock.python_version] for name, lock in _locks(tool)]
        declared = [sorted(tool.distributions), named, sorted(tool.programs)]
        where = [runner.kind, runner.cpu, str(runner.sysroot)] if runner else []
        key = json.dumps([source, *declared, *where, self._toolkit, sys.version, self._machine])
        known = self._recall("tools", key)
        if known is not None:
            return _identify(known[0], tuple(known[1]))
        started = time.time_ns()
        sources = read_tool_sources(source, self._toolkit)
        locks = [str(lock.path) for _, lock in _locks(tool)]
        for path in (*sources.files.values(), *locks):
            self._fact(path)  # Before it is read, so that `changed` sees an edit during or after that.
        detail: dict[str, Any] = {
            "files": {name: digest_file(path).sha256 for name, path in sources.files.items()},
            "python": self._python,
            "machine": self._machine,
        }
        folders = {os.path.dirname(path) for path in sources.files.values()}
        facts = [
            *sources.files.values(),
            *sorted(folders),  # A new file there may shadow what an import found elsewhere.
            *locks,
        ]
        if runner is not None:
            detail |= self._device(tool, runner, facts)
        elif tool.lock is None:
            closure = self._installed.closure(tool.distributions)
            self._check_declared(tool, sources, closure)
            detail["distributions"] = closure.versions
            facts += [each.metadata for _, each in sorted(closure.members.items())]
            facts += [folder for folder in self._folders if os.path.isdir(folder)]
        for name, lock in _locks(tool):
            file = read_lock(lock, self._machine)
            detail[name] = dict(file.detail)
            if lock.platform:
                detail[name] |= {"(platform)": file.platform, "(python)": file.python_version}
        if tool.programs:
            detail["programs"], found = self._host_programs(tool)
            facts += found
        self._remember("tools", key, detail, facts, started)
        return _identify(detail, tuple(facts))

    def _device(self, tool: PythonTool, runner: Runner, facts: list[str]) -> dict[str, Any]:
        """What stands in for this machine and its Python. Adds the paths this rests on to `facts`."""
        check_device_tool(tool, runner)
        python = read_lock(tool.lock, self._machine).python_version if tool.lock else self._python
        detail = {"machine": f"linux-{runner.cpu}", "runner": {"kind": runner.kind}, "python": python}
        if runner.sysroot is None:
            return detail
        lock = read_sysroot_lock(runner.sysroot)
        if tool.lock is not None and python != lock.python:
            raise AnalysisError(
                f"`{tool.lock.path.name}` is for Python {python}, and `{lock.name}` has {lock.python}",
                hint=f'name the Python of the device: Lock(path, "{tool.lock.platform}", "{lock.python}")',
            )
        emulator = find_emulator(lock)
        for path in (str(lock.path), emulator):
            self._fact(path)
            facts.append(path)
        identity = {"emulator": self._program_digest(os.path.realpath(emulator)), **lock.identity}
        return detail | {"runner": {"kind": runner.kind}, "sysroot": identity, "python": lock.python}

    def _host_programs(self, tool: PythonTool) -> tuple[dict[str, str], list[str]]:
        """Name -> digest of what it stands for, and the paths this rests on."""
        digests: dict[str, str] = {}
        facts: list[str] = [*PROGRAM_FOLDERS]
        for entry in sorted(tool.programs):
            program = parse_program(entry)
            path = program.path()
            files = _files_below(path)
            for each in dict.fromkeys((path, *files)):
                self._fact(each)
            facts += [path, *files]
            contents = {name: self._program_digest(os.path.realpath(file)) for file, name in files.items()}
            digests[program.name] = contents.get("") or digest_bytes(json.dumps(contents).encode()).sha256
        return digests, facts

    def _check_declared(self, tool: PythonTool, sources: ToolSources, closure: Closure) -> None:
        for each in sources.third_party:
            if closure.provides(each.package):
                continue
            owners = self._installed.owners(each.package)
            known = f"add {' or '.join(f'`{owner}`' for owner in owners)} to the tool's `distributions`"
            raise AnalysisError(
                f"tool imports `{each.package}` but does not declare the distribution that has it",
                location=Location(each.path, each.line),
                notes=(f"declared: {', '.join(tool.distributions) or 'none'}, and what they require",),
                hint=known if owners else "no installed distribution has it",
            )

    def _shell(self, command: str) -> ToolIdentity:
        found = {"/bin/bash"}
        for word in set(_WORDS.findall(command)):
            path = self._program(word)
            if path is not None:
                found.add(path)
        key = frozenset(found)
        if key not in self._shells:
            files = {path: self._program_digest(os.path.realpath(path)) for path in sorted(found)}
            paths = (*sorted({*found, *map(os.path.realpath, found)}), *PROGRAM_FOLDERS)
            for path in paths:
                self._fact(path)
            self._shells[key] = _identify({"files": files, "machine": self._machine}, paths)
        return self._shells[key]

    def _program(self, word: str) -> str | None:
        if word not in self._programs:
            self._programs[word] = find_program(word)
        return self._programs[word]

    def _program_digest(self, path: str) -> str:
        known = self._recall("programs", path)
        if known is not None:
            return str(known[0]["sha256"])
        started = time.time_ns()
        digest = digest_file(path).sha256
        self._remember("programs", path, {"sha256": digest}, (path,), started)
        return digest

    def _fact(self, path: str) -> Stat | None:
        if path not in self._stats:
            self._stats[path] = _stat(path)
        return self._stats[path]

    def _recall(self, table: str, key: str) -> tuple[dict[str, Any], list[str]] | None:
        entry = self._load()[table].get(key)
        if entry is None:
            return None
        detail, facts = entry
        for path, known in facts:
            if self._fact(path) != (tuple(known) if known else None):
                return None
        return detail, [path for path, _ in facts]

    def _remember(
        self, table: str, key: str, detail: dict[str, Any], paths: Sequence[str], started: int
    ) -> None:
        facts = [(path, self._fact(path)) for path in dict.fromkeys(paths)]
        if any(stat is None or stat[1] > started - _RACY_NS for _, stat in facts):
            return  # Too fresh to trust its mtime; found out anew next time.
        self._load()[table][key] = [detail, facts]
        self._dirty = True

    def _load(self) -> dict[str, Any]:
        if self._stored is None:
            empty: dict[str, Any] = {"schema": _SCHEMA, "tools": {}, "programs": {}}
            self._stored = empty
            if self._file is not None:
                with contextlib.suppress(OSError, ValueError):
                    with open(self._file, encoding="utf-8") as stream:
                        loaded = json.load(stream)
                    if isinstance(loaded, dict) and loaded.get("schema") == _SCHEMA:
                        self._stored = loaded
        return self._stored


def machine_name() -> str:
    """`linux-x86_64`, of this machine."""
    return f"{sys.platform}-{platform_machine()}"


def platform_machine() -> str:
    """The machine's architecture, `x86_64`: floating-point results differ between architectures."""
    return os.uname().machine


def check_device_tool(tool: PythonTool, runner: Runner) -> None:
    """Raise AnalysisError unless a device can run the tool."""
    if tool.lock is not None and not tool.lock.platform:
        raise AnalysisError(
            f"the lock `{tool.lock.path.name}` is for this machine, and its tool runs on {runner.cpu}",
            hint="name the platform of its wheels, such as `aarch64-manylinux_2_28`",
        )
    if tool.packages or tool.programs:
        raise AnalysisError(
            f"`{tool.source.name}` runs on {runner.cpu}, where this machine's packages and programs are not",
            hint="what a device tool imports is in its `lock`",
        )


def _identify(detail: Mapping[str, Any], facts: tuple[str, ...]) -> ToolIdentity:
    encoded = json.dumps(detail, sort_keys=True, separators=(",", ":")).encode()
    return ToolIdentity(digest_bytes(encoded).sha256, detail, facts)


def _stat(path: str) -> Stat | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ino)


def _locks(tool: PythonTool) -> list[tuple[str, Lock]]:
    """Every lock of a tool, by the name it has in its identity."""
    own = [("lock", tool.lock)] if tool.lock is not None else []
    return [
        *own,
        *((f"lock of {name}", lock) for name, lock in sorted(tool.packages, key=lambda each: each[0])),
    ]


def _files_below(path: str) -> dict[str, str]:
    """Path -> name inside of `path`, of every file: a tool may name a directory, such as a sysroot."""
    if not os.path.isdir(path):
        return {path: ""}
    found = {}
    for folder, names, files in os.walk(path):
        names.sort()
        for name in sorted(files):
            file = f"{folder}/{name}"
            if os.path.isfile(file):  # Not a link that leads nowhere.
                found[file] = os.path.relpath(file, path)
    return found
