"""Installer: uv, called so that it installs exactly what a lock says; its complaints in our words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Sequence
from typing import NoReturn

from modelbuild.errors import AnalysisError, CacheError, EnvironmentFailure, Interrupted, Location
from modelbuild.execution.distributions import normalise
from modelbuild.execution.installed_packages import changed_packages
from modelbuild.execution.lock_file import LockFile
from modelbuild.execution.package_source import PackageSource

_POLL_S = 0.1
_END_S = 2.0
_NOTES = 8
_NOT_INSTALLED = re.compile(r"The package `(?P<by>[^`]+)` requires `(?P<what>[^`]+)`, but it's not installed")
_NAMED = re.compile(r"The package `[^`]+` requires `(?P<what>[A-Za-z0-9._-]+)[^`]*`, but it's not installed")
_CLASHES = re.compile(r"The package `[^`]+` (requires|has) .+")
_PIP_PLATFORM = re.compile(r"armv7-manylinux_2_(?P<minor>\d+)\Z")
_PROGRESS = (
    *("Using ", "Resolved ", "Prepared ", "Checked "),
    *("Building ", "Built ", "Downloading ", "Downloaded "),
)
"""How lines of uv begin that say what it is doing, and not what went wrong."""
_PREFIXES = ("error: ", "cause: ", "hint: ", "warning: ", "ERROR: ", "WARNING: ")


class Installer:
    """Installs a lock into a directory, as a virtual environment or as a folder of packages."""

    def __init__(self, source: PackageSource, cancel: threading.Event) -> None:
        """cancel: ends a running installation; it then raises Interrupted."""
        self._source = source
        self._cancel = cancel

    def install(self, lock: LockFile, directory: str, lock_descriptor: int) -> tuple[str, ...]:
        """Fill the empty `directory`; answers what a person should know.

        lock_descriptor: handed to uv, so that the lock lasts as long as anything writes to the directory.
        Raises EnvironmentFailure naming the line of the lock, CacheError for a full disk, Interrupted.
        """
        requirements = f"{directory}/requirements.lock"
        with open(requirements, "w", encoding="utf-8") as stream:
            stream.write(lock.text)
        common = ["--no-deps", "--no-progress", "--requirements", requirements]
        for each in self._source.find_links:
            common += ["--find-links", each]
        if self._source.offline:
            common.append("--offline")
        if (tags := pip_tags(lock.lock.platform)) is not None:
            self._pip(lock, lock_descriptor, tags, f"{directory}/packages", requirements)
            return ()
        if lock.lock.platform:
            chosen = ["--python-platform", lock.lock.platform, "--python-version", lock.python_version]
            target = ["--python", _base_python(), "--target", f"{directory}/packages", *chosen]
            if lock.python_version == f"{sys.version_info.major}.{sys.version_info.minor}":
                # A device's Python may run them: under emulation, compiling numpy takes longer than using it.
                target.append("--compile-bytecode")
            return self._packages(
                lock, lock_descriptor, f"{directory}/packages", [*target, "--only-binary", ":all:", *common]
            )
        venv = f"{directory}/venv"
        python = f"{venv}/bin/python"
        make = ["venv", "--no-project", "--relocatable", "--python", _base_python(), venv]
        self._uv(lock, lock_descriptor, *make)
        packages = f"{venv}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        arguments = ["--python", python, "--compile-bytecode", *common]
        warnings = self._packages(lock, lock_descriptor, packages, arguments)
        code, output = self._call(lock_descriptor, "pip", "check", "--python", python)
        wanted = {normalise(match["what"]) for match in _NAMED.finditer(output)} if code else set()
        if wanted & {pin.name for pin in lock.held_back}:
            with open(requirements, "w", encoding="utf-8") as stream:
                stream.writelines(f"{pin.unconditional}\n" for pin in lock.held_back)
            warnings += self._packages(lock, lock_descriptor, packages, arguments)
            code, output = self._call(lock_descriptor, "pip", "check", "--python", python)
        return (*warnings, *(_check(lock, output) if code else ()))

    def _packages(
        self, lock: LockFile, lock_descriptor: int, directory: str, arguments: Sequence[str]
    ) -> tuple[str, ...]:
        """Install packages into `directory`, past uv's cache where it holds what no wheel does; warnings."""
        self._uv(lock, lock_descriptor, "pip", "install", *arguments)
        changed = changed_packages(directory, self._cancel)
        if not changed:
            return ()
        fresh = [part for name in changed for part in ("--reinstall-package", name)]
        self._uv(lock, lock_descriptor, "pip", "install", "--no-cache", *fresh, *arguments)
        still = changed_packages(directory, self._cancel)
        return tuple(
            f"in `{lock.name}`: `{file}` of `{name}` is not what its wheel lists"
            if name in still
            else f"`{file}` of `{name}` was changed in uv's cache, and is fetched again;"
            f" `uv cache clean {name}` repairs the cache"
            for name, file in changed.items()
        )

    def _pip(
        self, lock: LockFile, lock_descriptor: int, tags: Sequence[str], target: str, requirements: str
    ) -> None:
        """Where uv knows no such machine."""
        python = lock.python_version.replace(".", "")
        arguments = ["--no-input", "--disable-pip-version-check", "--no-warn-script-location", "--no-deps"]
        arguments += ["--quiet", "--only-binary", ":all:", "--implementation", "cp", "--target", target]
        arguments += ["--python-version", lock.python_version, "--requirement", requirements]
        for option, values in (("--platform", tags), ("--abi", (f"cp{python}", "abi3", "none"))):
            arguments += [part for value in values for part in (option, value)]
        for each in self._source.find_links:
            arguments += ["--find-links", each]
        if self._source.offline:
            arguments.append("--no-index")
        code, output = self._run(lock_descriptor, sys.executable, "-m", "pip", "install", *arguments)
        if "No module named pip" in output:
            raise EnvironmentFailure(
                f"wheels of `{lock.platform}` are fetched by pip, which is not installed beside modelbuild",
                hint="python -m ensurepip",
            )
        if code:
            _refuse(lock, output, offline=self._source.offline)

    def _uv(self, lock: LockFile, lock_descriptor: int, *arguments: str) -> None:
        code, output = self._call(lock_descriptor, *arguments)
        if code:
            _refuse(lock, output, offline=self._source.offline)

    def _call(self, lock_descriptor: int, *arguments: str) -> tuple[int, str]:
        return self._run(lock_descriptor, _find_uv(), *arguments)

    def _run(self, lock_descriptor: int, *command: str) -> tuple[int, str]:
        environment = {
            "LANG": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
            **self._source.environment,
            "NO_COLOR": "1",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(lock_descriptor,),
                cwd="/",  # A workspace's own uv settings are for the workspace's own environment.
                start_new_session=True,
            )
            while True:
                try:
                    code = process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if self._cancel.is_set():
                        _end(process)
                        raise Interrupted("making a tool's environment was interrupted") from None
            output.seek(0)
            return code, output.read().decode(errors="replace")


def pip_tags(platform: str) -> list[str] | None:
    """What pip calls a machine that uv does not know, `armv7-manylinux_2_31`; None for those it does.

    A wheel for an older C library runs with a newer one, so that all of them are listed, the newest first.
    """
    match = _PIP_PLATFORM.match(platform)
    if match is None:
        return None
    newest = int(match["minor"])
    return [f"manylinux_2_{minor}_armv7l" for minor in range(newest, 16, -1)] + ["manylinux2014_armv7l"]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _base_python() -> str:
    """The interpreter itself, not the link to it in the environment of modelbuild, which may be removed."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _find_uv() -> str:
    for folder in (sysconfig.get_path("scripts"), os.path.dirname(sys.executable)):
        path = os.path.join(folder, "uv")
        if os.access(path, os.X_OK):
            return path
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - knows of --user and --target installations

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        raise EnvironmentFailure(
            "`uv`, which makes the environments of tools, is not installed beside modelbuild",
            hint="pip install uv",
        ) from None


def _check(lock: LockFile, output: str) -> tuple[str, ...]:
    """What `uv pip check` found: a package that is not there is an error, a version out of range is not."""
    missing = [match.groupdict() for match in _NOT_INSTALLED.finditer(output)]
    if missing:
        first = missing[0]
        raise EnvironmentFailure(
            f"the lock `{lock.name}` is not complete: `{first['by']}` requires `{first['what']}`",
            location=lock.location(first["by"]),
            notes=tuple(f"`{each['by']}` requires `{each['what']}`" for each in missing[1:_NOTES]),
            hint=f"a lock names everything: `uv pip compile requirements.in -o {lock.lock.path.name}`",
        )
    return tuple(f"in `{lock.name}`: {match[0]}" for match in _CLASHES.finditer(output))


def _refuse(lock: LockFile, output: str, *, offline: bool) -> NoReturn:
    told = "\n".join(line for line in output.splitlines() if not line.strip().startswith(_PROGRESS))
    if "No space left on device" in output or "os error 28" in output:
        raise CacheError(
            f"no space is left for the environment of `{lock.name}`",
            notes=_causes(told),
            hint="free some space with `modelbuild cache gc --max-size 10G`, or move the cache with "
            "`--cache-dir`",
        )
    if "--python-platform" in output and "invalid value" in output:
        raise AnalysisError(
            f"the lock `{lock.name}` is for `{lock.platform}`, which is no platform that uv knows",
            location=Location(str(lock.lock.path)),
            hint="`uv pip install --help` lists them: `aarch64-manylinux_2_28`",
        )
    location = lock.location(told)
    pin = lock.pin_at(location.line)
    what = f"`{pin.name}=={pin.version}`" if pin else "a package"
    why, hint = _why(told, offline=offline)
    raise EnvironmentFailure(
        f"the environment of `{lock.name}` cannot be made: {what} {why}",
        location=location if location.line else Location(str(lock.lock.path)),
        notes=_causes(told),
        hint=hint,
    )


_OFFLINE = (
    "is not at hand, and this build is offline",
    "put its wheel into the directory that `find_links` in `modelbuild.toml` names, or drop `offline`",
)
_NOT_FOUND = (
    "network was disabled",
    "there is no version of",
    "was not found in",
    "No matching distribution",
    "only ",
)
_WHY: Sequence[tuple[tuple[str, ...], str, str]] = (
    (
        ("Hash mismatch",),
        "is another file than the lock says",
        "if the file was replaced on purpose, compile the lock again",
    ),
    (
        ("Failed to read `--find-links`",),
        "cannot be looked for: a directory of wheels is not there",
        "`find_links` in `modelbuild.toml`, UV_FIND_LINKS or pip's own settings name it",
    ),
    (
        ("Failed to initialize cache",),
        "cannot be installed: uv's own cache cannot be written",
        "UV_CACHE_DIR names another directory for it",
    ),
    (
        ("Failed to build", "Failed to download and build"),
        "comes as source only and does not build here",
        "build a wheel of it and name its directory with `find_links` in `modelbuild.toml`",
    ),
    (
        ("certificate",),
        "cannot be fetched: the server's certificate is not trusted",
        "SSL_CERT_FILE names the certificates to trust",
    ),
    (
        (
            "dns error",
            "Connect",
            "error sending request",
            "timed out",
            "Failed to fetch",
            "Failed to download",
        ),
        "cannot be fetched",
        "check the network, or set `find_links` in `modelbuild.toml` to a directory with the wheels",
    ),
    (
        ("has no wheels with", "no usable wheels"),
        "has no wheel for this Python and machine",
        "pin a version that has one, or build the wheel and name its directory with `find_links`",
    ),
    (
        _NOT_FOUND,
        "is not to be had",
        "look for a typing error, or name another index with UV_INDEX_URL, or a directory with `find_links`",
    ),
)


def _why(output: str, *, offline: bool) -> tuple[str, str | None]:
    for signs, why, hint in _WHY:
        if any(sign in output for sign in signs):
            return _OFFLINE if offline and signs is _NOT_FOUND else (why, hint)
    return "cannot be installed", None


def _causes(output: str) -> tuple[str, ...]:
    """The lines of uv's explanation, without its labels."""
    lines = []
    for line in output.splitlines():
        text = line.strip()
        if not text:
            continue
        for prefix in _PREFIXES:
            text = text.removeprefix(prefix)
        lines.append(text)
    return tuple(lines[:_NOTES])
