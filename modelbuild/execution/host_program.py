"""HostProgram: a program or file of this machine that a tool names, found without PATH."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from modelbuild.errors import AnalysisError, EnvironmentFailure

PROGRAM_FOLDERS = ("/usr/bin", "/bin")

_ENTRY = re.compile(r"^(?P<name>\S+)(?:\s+\((?P<manager>apt): (?P<packages>[^()]+)\))?$")
_INSTALL = {"apt": "apt-get install"}


@dataclass(frozen=True, slots=True)
class HostProgram:
    """name: as the tool asks for it. install: the command that brings it, or nothing."""

    name: str
    install: str

    def path(self) -> str:
        """Its absolute path. Raises EnvironmentFailure when it is not there."""
        found = find_program(self.name) if "/" not in self.name else self.name
        if found is None or not os.path.exists(found):
            where = " in /usr/bin and /bin" if "/" not in self.name else ""
            raise EnvironmentFailure(
                f"a tool needs `{self.name}`, which is not on this machine",
                notes=(f"looked for it{where}",) if where else (),
                hint=self.install or None,
            )
        return found


def parse_program(entry: str) -> HostProgram:
    """`name`, `/absolute/path`, each with ` (apt: package)` behind it. Raises AnalysisError."""
    match = _ENTRY.match(entry)
    if match is None or ("/" in match["name"] and not match["name"].startswith("/")):
        raise AnalysisError(
            f"`{entry}` names no program",
            hint="write it as `qemu-aarch64-static (apt: qemu-user-static)`, or as an absolute path",
        )
    install = f"{_INSTALL[match['manager']]} {match['packages'].strip()}" if match["manager"] else ""
    return HostProgram(match["name"], install)


def find_program(word: str) -> str | None:
    """The executable file that `word` names: an absolute path, or a name in the program folders."""
    candidates = [word] if word.startswith("/") else []
    if "/" not in word:
        candidates = [f"{folder}/{word}" for folder in PROGRAM_FOLDERS]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None
