"""Calling a tool with a lock as a build does: in a process of its own, with what the lock pins."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from modelbuild.errors import AnalysisError
from modelbuild.execution.package_source import package_source
from modelbuild.execution.tool_environment import ToolEnvironments
from modelbuild.execution.worker_pool import worker_environment
from modelbuild.loading.workspace import Settings
from modelbuild.tool import PythonTool
from modelbuild.toolkit import request as toolkit_request
from modelbuild.toolkit.request import Request, ToolError

_REQUEST = "request.json"


def call_locked(tool: PythonTool, request: Request, root: Path, environments: Path) -> str:
    """Run `tool` in the directory `root`, below which the inputs and outputs lie; what it printed.

    environments: where environments are made, and found the next time.
    Raises ToolError for whatever it fails with, EnvironmentFailure when an environment cannot be made.
    """
    source = package_source(Settings(), environments.parent, os.environ)
    with closing(ToolEnvironments(str(environments.absolute()), lambda: source)) as made:
        found = {lock: made.acquire(lock, threading.Event()) for lock in tool.locks}
        python = found[tool.lock].python if tool.lock else None
        if python is None:
            raise AnalysisError(
                f"the lock of `{tool.source.name}` is for another machine and cannot run here"
            )
        packages = {name: Path(found[lock].packages) for name, lock in tool.packages}
        (root / _REQUEST).write_text(json.dumps(_encoded(request, packages, root)))
        command = [python, "-s", "-P", "-B", toolkit_request.__file__, str(tool.source), _REQUEST]
        home = root.with_name(f"{root.name}.home")
        home.mkdir()
        done = subprocess.run(
            command,
            cwd=root,
            env={**worker_environment(request.threads), "HOME": str(home), "TMPDIR": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
    (root / _REQUEST).unlink()
    if done.returncode:
        raise _error(done.stderr)
    return done.stdout


def _encoded(request: Request, packages: dict[str, Path], root: Path) -> dict[str, Any]:
    """What `Request.from_json` reads; paths of inputs and outputs are relative, as in a build."""
    return {
        "params": request.params,
        "inputs": _texts(((name, path.relative_to(root)) for name, path in request.inputs.items())),
        "outputs": _texts(((name, path.relative_to(root)) for name, path in request.outputs.items())),
        "scratch": str(request.scratch) if request.scratch else None,
        "threads": request.threads,
        "arguments": request.arguments,
        "packages": _texts((*packages.items(), *request.packages.items())),
        "programs": _texts(request.programs.items()),
    }


def _texts(paths: Iterable[tuple[str, Path]]) -> dict[str, str]:
    return {name: str(path) for name, path in paths}


def _error(text: str) -> ToolError:
    """What the tool said; the whole traceback, if it has one."""
    lines = text.strip().splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    if "Traceback (most recent call last):" in lines or not said:
        return ToolError(text.strip() or "the tool failed and said nothing")
    return ToolError("\n".join(said), hints[0] if hints else None)
