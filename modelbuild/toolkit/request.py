"""The request: everything an action hands to its tool. Standard library only.

A tool is a Python file with `def main(request: Request) -> None`. It reads `request.inputs`, writes
exactly `request.outputs`, and raises ToolError for what its user can mend. To try one by hand:

    python -m modelbuild.toolkit.request path/to/tool.py request.json

In an environment without modelbuild, name this file instead of the module.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any


class ToolError(Exception):
    """A failure with a cause the user can act on; shown without a traceback."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Request:
    """One call of a tool.

    params: plain JSON data, part of the action key (seed included).
    inputs, outputs: logical name -> path. An input is read-only. An output does not exist yet: a file
    is to be written there, a tree is to be created as a directory there.
    scratch: for `resumable=True` actions a directory kept when the action is killed or fails; else None.
    threads: how many threads the tool may use; part of the key.
    arguments: what the user typed after `--`; only for tools called by `modelbuild run`.
    packages: name -> directory of unpacked packages that the tool reads, as its PythonTool names them.
    programs: name -> absolute path of a program or file of this machine, likewise.
    """

    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    outputs: Mapping[str, Path]
    scratch: Path | None = None
    threads: int = 1
    arguments: tuple[str, ...] = field(default=())
    packages: Mapping[str, Path] = field(default_factory=dict)
    programs: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], root: Path) -> Request:
        """Decode `request.json`; paths in it are relative to `root`."""
        scratch = data.get("scratch")
        return cls(
            params=data["params"],
            inputs={name: root / path for name, path in data["inputs"].items()},
            outputs={name: root / path for name, path in data["outputs"].items()},
            scratch=Path(scratch) if scratch else None,
            threads=int(data.get("threads", 1)),
            arguments=tuple(data.get("arguments", ())),
            packages={name: root / path for name, path in data.get("packages", {}).items()},
            programs={name: root / path for name, path in data.get("programs", {}).items()},
        )


def load_tool(path: Path) -> ModuleType:
    """Import a tool file; its folder becomes importable, so that siblings of the tool can be shared."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("modelbuild_tool", path)
    if spec is None or spec.loader is None:
        raise ToolError(f"`{path}` is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["modelbuild_tool"] = module
    spec.loader.exec_module(module)
    if not hasattr(module, "main"):
        raise ToolError(f"`{path}` defines no `main(request)`")
    return module


def call_tool(tool: Path, request: Request) -> int:
    """Run a tool's `main`; 0 on success, 1 when it says why it cannot."""
    try:
        load_tool(tool).main(request)
    except ToolError as error:
        sys.stderr.write(f"error: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
        return 1
    return 0


def _make_importable() -> None:
    """In an environment without modelbuild, let its package be found, and nothing beside it."""
    if importlib.util.find_spec("modelbuild") is None:
        package = Path(__file__).resolve().parent.parent
        spec = importlib.util.spec_from_file_location(
            "modelbuild", package / "__init__.py", submodule_search_locations=[str(package)]
        )
        assert spec is not None
        sys.modules["modelbuild"] = importlib.util.module_from_spec(spec)


if __name__ == "__main__":
    _make_importable()
    # As `__main__` this module is a second copy; tools raise the ToolError of the first.
    from modelbuild.toolkit import request as this  # noqa: PLW0406

    request_file = Path(sys.argv[2])
    data = json.loads(request_file.read_text())
    sys.exit(this.call_tool(Path(sys.argv[1]), this.Request.from_json(data, request_file.parent)))
