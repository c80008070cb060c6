"""run_tool: calls one tool file's `main(request)` on given inputs, in a directory as an action has it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import modelbuild.toolkit
from modelbuild.execution.environment import ToolIdentities
from modelbuild.execution.host_program import parse_program
from modelbuild.execution.tool_sources import read_tool_sources
from modelbuild.testing.locked_tool import call_locked
from modelbuild.tool import PythonTool
from modelbuild.toolkit.request import Request, load_tool

_Stat = tuple[int, int]


def run_tool(
    tool: PythonTool | Path,
    directory: Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    outputs: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    threads: int = 1,
    arguments: Sequence[str] = (),
    packages: Mapping[str, Path] | None = None,
    resumable: bool = False,
    environments: Path | None = None,
) -> dict[str, Path]:
    """Call `main(request)` of a tool, and return its outputs by their logical names.

    tool: what a rule hands to `ctx.run`, or only its file. directory: where a new directory for the call is
    made, as `tmp_path` of pytest. inputs, outputs, params, threads: as in `ctx.run`. arguments: those of
    `modelbuild run`. packages: what `request.packages` leads to. resumable: whether there is
    `request.scratch`. environments: a directory in which environments of locks are made, once; a tool with a
    lock then runs in its own, in a process of its own, and what it prints is printed here. Without it every
    tool runs in this process, with the packages of this process, whatever its lock says.

    It holds the tool to what a build holds it to. Raises AnalysisError for an import that the tool does not
    declare, AssertionError when it leaves out an output, makes another one or changes an input, and lets
    through what the tool raises, a ToolError for instance.
    """
    source = tool.source if isinstance(tool, PythonTool) else tool.absolute()
    _check_imports(tool)
    root = Path(tempfile.mkdtemp(prefix=f"{source.stem}-", dir=directory)).resolve()
    given = {name: _placed(root / "in" / name, path) for name, path in (inputs or {}).items()}
    made = {name: root / "out" / name for name in outputs}
    for path in made.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    scratch = root.with_name(f"{root.name}.scratch") if resumable else None
    if scratch is not None:
        scratch.mkdir()
    request = Request(
        params=json.loads(json.dumps(dict(params or {}), allow_nan=False)),
        inputs=given,
        outputs=made,
        scratch=scratch,
        threads=threads,
        arguments=tuple(arguments),
        packages=dict(packages or {}),
        programs=_programs(tool),
    )
    before = {name: _stats(path) for name, path in given.items()}
    if environments is not None and isinstance(tool, PythonTool) and tool.lock is not None:
        sys.stdout.write(call_locked(tool, request, root, environments))
    else:
        with _loading_apart(source.parent), contextlib.chdir(root):
            load_tool(source).main(request)
    changed = [name for name, path in given.items() if _stats(path) != before[name]]
    assert not changed, f"{source.name} changed its input `{changed[0]}`"
    missing = [name for name, path in made.items() if not path.exists()]
    assert not missing, f"{source.name} did not make its output `{missing[0]}`"
    more = [path for path in _leaves(root) if not any(path.is_relative_to(each) for each in made.values())]
    assert not more, f"{source.name} made `{more[0].relative_to(root)}`, which is no output"
    return made


def _programs(tool: PythonTool | Path) -> dict[str, Path]:
    """Name -> path of what a tool says it uses. Raises EnvironmentFailure for what is not installed."""
    entries = tool.programs if isinstance(tool, PythonTool) else ()
    return {each.name: Path(each.path()) for each in map(parse_program, entries)}


def _check_imports(tool: PythonTool | Path) -> None:
    if isinstance(tool, PythonTool):
        ToolIdentities().identity(tool, {})
    else:
        read_tool_sources(str(tool.absolute()), os.path.dirname(modelbuild.toolkit.__file__))


def _placed(place: Path, path: Path) -> Path:
    """An input at its place, alone: what lies beside it is not the tool's."""
    assert path.exists(), f"the input `{path}` is not there"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(path.resolve())
    return place


def _stats(path: Path) -> dict[str, _Stat]:
    """Size and time of every file of an input."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    found = ((each, each.stat()) for each in files)
    return {str(each): (stat.st_size, stat.st_mtime_ns) for each, stat in found}


def _leaves(root: Path) -> Iterator[Path]:
    """Every file below `root` but the inputs."""
    for folder, _, files in os.walk(root):
        if not Path(folder).is_relative_to(root / "in"):
            yield from (Path(folder, name) for name in sorted(files))


@contextlib.contextmanager
def _loading_apart(folder: Path) -> Iterator[None]:
    """What a tool imports from its own folder is its own: another tool's `layout.py` is another module."""
    own = {each.stem for each in folder.iterdir() if each.suffix == ".py" or each.is_dir()}
    own = (own | {"modelbuild_tool"}) - sys.stdlib_module_names - {"modelbuild"}
    path, bytecode = list(sys.path), sys.dont_write_bytecode
    aside = _take_out(own)
    sys.dont_write_bytecode = True  # A tool's folder gets no `__pycache__`: a glob would see it.
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path[:] = path
        _take_out(own)
        sys.modules.update(aside)


def _take_out(names: set[str]) -> dict[str, ModuleType]:
    """Take the modules with these top-level names out of those that are loaded."""
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}
