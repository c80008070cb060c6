"""Tools: the programs that actions run, and what identifies them.

A tool's identity covers its own source files and its environment, so that another torch reruns what ran
torch and an edit of one tool reruns that tool only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
class PythonTool:
    """A Python file with `main(request)`; see modelbuild.toolkit.request.

    source: absolute path of the file. The siblings and toolkit modules it imports are found by reading its
    import statements, and are part of its identity.
    distributions: the installed packages it imports (`torch`, `safetensors`); their transitive closure with
    versions is part of its identity. Importing any other package is an error.
    preload: modules imported once in the zygote, before the fork; speed only, never part of a key.
    """

    source: Path
    distributions: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()


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
