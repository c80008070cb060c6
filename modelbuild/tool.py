"""Tools: the programs that actions run, and what identifies them.

A tool's identity covers its own source files and its environment, so that another torch reruns what ran
torch and an edit of one tool reruns that tool only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import AnalysisError

TRANSFORMERS_PRELOAD = (
    "torch",
    "tokenizers",
    "safetensors.torch",
    "transformers",
    "transformers.models.llama.modeling_llama",
    "transformers.models.vit.modeling_vit",
)
"""What tools of transformers models preload: all alike, so that one zygote imports it once for all."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A pinned requirements file (`name==version` lines, the whole closure), and the machine it is for.

    path: absolute. platform: "" for this machine, else a platform of uv, such as `aarch64-manylinux_2_28`:
    wheels of another machine, unpacked and read as files, never run by this Python.
    python_version: of a foreign platform, `3.11`; "" for the minor version of this Python.
    """

    path: Path
    platform: str = ""
    python_version: str = ""

    def __post_init__(self) -> None:
        """Raises AnalysisError for a relative path, and for another Python on this machine."""
        if not self.path.is_absolute():
            raise AnalysisError(
                f"the lock `{self.path}` has a relative path",
                hint='name it beside the rule: `Path(__file__).parent / "requirements.lock"`',
            )
        if self.python_version and not self.platform:
            raise AnalysisError(
                f"the lock `{self.path.name}` asks for Python {self.python_version} and for no platform",
                hint="what runs on this machine runs with the Python that runs modelbuild",
            )


@dataclass(frozen=True, slots=True)
class PythonTool:
    """A Python file with `main(request)`; see modelbuild.toolkit.request.

    source: absolute path of the file. The siblings and toolkit modules it imports are found by reading its
    import statements, and are part of its identity.
    distributions: the installed packages it imports (`torch`, `safetensors`); their transitive closure with
    versions is part of its identity. Importing any other package is an error.
    preload: modules imported once in the zygote, before the fork; speed only, never part of a key.
    lock: the isolated environment it runs in, with nothing else in it; None for modelbuild's own environment.
    With a lock, `distributions` is not looked at.
    packages: further environments, whose files it reads: `request.packages[name]` is the directory.
    programs: files of the host it uses, by absolute path, or by name in /usr/bin and /bin; their content is
    part of its identity, and `request.programs[name]` is the path. What to install when it is missing goes
    behind it: `"qemu-aarch64-static (apt: qemu-user-static)"`.
    """

    source: Path
    distributions: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    lock: Lock | None = None
    packages: tuple[tuple[str, Lock], ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def locks(self) -> tuple[Lock, ...]:
        """Every environment it needs, its own first."""
        own = (self.lock,) if self.lock is not None else ()
        return (*own, *(lock for _, lock in self.packages))


@dataclass(frozen=True, slots=True)
class ShellTool:
    """`/bin/bash -c` of the command in the action's parameters, as genrule runs it."""


@dataclass(frozen=True, slots=True)
class WriteTool:
    """Built in: writes the parameter `content` to the one output."""


@dataclass(frozen=True, slots=True)
class TreeTool:
    """Built in: makes a tree of its inputs, at the paths in their logical names."""


Tool = PythonTool | ShellTool | WriteTool | TreeTool
