"""Debian packages of another architecture, fetched and unpacked by apt and dpkg-deb in our own directories.

Nothing of this machine's own package management is changed, and no root is needed: apt is given another
state, another cache and another list of sources. It checks what it fetches against Debian's signatures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from modelbuild.errors import EnvironmentFailure, Interrupted
from modelbuild.execution.host_program import find_program
from modelbuild.execution.sysroot_lock import SysrootLock

_POLL_S = 0.1
_NOTES = 8
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SOURCES = "$(REPO_URI)|$(COMPONENT)"
_MERGED = ("bin", "lib", "lib64", "sbin")
"""Directories that Debian is moving below /usr; programs name the old place."""


class DebianUnpacker:
    """Makes sysroots. cancel: ends what runs; then Interrupted is raised."""

    def __init__(self, cancel: threading.Event) -> None:
        self._cancel = cancel

    def unpack(self, lock: SysrootLock, directory: str, lock_descriptor: int = -1) -> dict[str, str]:
        """Fill `directory`; the version of each package. lock_descriptor: handed on to what is started.

        Raises EnvironmentFailure when packages cannot be had, and Interrupted.
        """
        for program in ("apt-get", "dpkg-deb"):
            if find_program(program) is None:
                raise EnvironmentFailure(
                    f"`{program}`, which unpacks Debian packages, is not on this machine",
                    hint="sysroots are made on Debian and its derivatives",
                )
        descriptors = (lock_descriptor,) if lock_descriptor >= 0 else ()
        with tempfile.TemporaryDirectory(prefix="modelbuild-apt-") as work:
            options = self._private_apt(lock, Path(work), descriptors)
            self._run(lock, ["apt-get", *options, "update"], work, descriptors)
            self._run(lock, ["apt-get", *options, "download", *sorted(lock.packages)], work, descriptors)
            versions = {}
            for archive in sorted(Path(work).glob("*.deb")):
                name, version, _ = archive.name.split("_", 2)
                versions[name] = version.replace("%3a", ":")
                self._run(lock, ["dpkg-deb", "-x", str(archive), directory], work, descriptors)
        _finish(lock, Path(directory))
        return versions

    def mirror(self) -> str:
        """The Debian mirror that this machine's apt is set up with. Raises EnvironmentFailure."""
        output = self._call(
            ["apt-get", "indextargets", "--format", _SOURCES, "Created-By: Packages"], "/", ()
        )[1]
        for line in output.splitlines():
            uri, _, component = line.partition("|")
            if component == "main" and uri.rstrip("/").endswith("/debian"):
                return uri
        raise EnvironmentFailure(
            "apt on this machine knows no Debian mirror, from which an emulated device's system could come",
            hint="add one to /etc/apt/sources.list.d, and install `debian-archive-keyring`",
        )

    def _private_apt(self, lock: SysrootLock, work: Path, descriptors: Sequence[int]) -> list[str]:
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        (work / "status").touch()
        # Where that file is missing, apt looks for keys where it always does.
        signed = f" [signed-by={_KEYRING}]" if os.path.exists(_KEYRING) else ""
        (work / "sources.list").write_text(f"deb{signed} {self.mirror()} {lock.suite} main\n")
        settings = {
            "Dir::State": work / "state",
            "Dir::State::status": work / "status",
            "Dir::Cache": work / "cache",
            "Dir::Etc::sourcelist": work / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": "-",
            "Dir::Etc::preferencesparts": "-",
            "APT::Architecture": lock.architecture,
            "APT::Architectures": lock.architecture,
            "APT::Sandbox::User": "",  # The directories are ours.
            "APT::Update::Post-Invoke": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": 3,
        }
        return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]

    def _run(self, lock: SysrootLock, command: Sequence[str], cwd: str, descriptors: Sequence[int]) -> None:
        code, output = self._call(command, cwd, descriptors)
        if code == 0 and not any(line.startswith("W: Failed to fetch") for line in output.splitlines()):
            return
        said = [line[3:] for line in output.splitlines() if line.startswith(("E: ", "W: "))]
        raise EnvironmentFailure(
            f"the sysroot of `{lock.name}` cannot be made: {command[0]} failed",
            notes=tuple((said or output.splitlines())[:_NOTES]),
            hint=f"packages come from suite `{lock.suite}` of this machine's Debian mirror: is it reachable?",
        )

    def _call(self, command: Sequence[str], cwd: str, descriptors: Sequence[int]) -> tuple[int, str]:
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                ["/usr/bin/env", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                pass_fds=descriptors,
                start_new_session=True,
            )
            while True:
                try:
                    code = process.wait(_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    if self._cancel.is_set():
                        process.kill()
                        process.wait()
                        raise Interrupted("making a sysroot was interrupted") from None
            output.seek(0)
            return code, output.read().decode(errors="replace")


def _finish(lock: SysrootLock, root: Path) -> None:
    """What the kernel, the package manager and the packages' scripts would have done."""
    for name in _MERGED:
        if not (root / name).exists() and (root / "usr" / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")
    for path, target in lock.links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target)
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            _make_relative(Path(folder) / name, root)
    for path, content in lock.files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    shutil.rmtree(root / "usr/share/doc", ignore_errors=True)
    python = root / f"usr/bin/python{lock.python}"
    if not python.is_file():
        raise EnvironmentFailure(
            f"the sysroot of `{lock.name}` has no Python {lock.python}",
            hint=f"name `python{lock.python}-minimal` and `libpython{lock.python}-stdlib` in its packages",
        )


def _make_relative(path: Path, root: Path) -> None:
    """An absolute link would lead to this machine's own files."""
    if path.is_symlink():
        target = os.readlink(path)
        if target.startswith("/"):
            path.unlink()
            path.symlink_to(os.path.relpath(root / target[1:], path.parent))
