"""Tools of toolchains, each in the environment of its own lock. One cache for all tests of a session."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modelbuild.cli.package_source import package_source
from modelbuild.execution.tool_environment import ToolEnvironments
from modelbuild.loading.workspace import Settings
from modelbuild.tool import PythonTool
from modelbuild.toolkit.request import ToolError

ROOT = Path(__file__).resolve().parents[2]


class LockedTools:
    """Calls tools as a worker does, without a worker."""

    def __init__(self, cache: Path) -> None:
        self._environments = ToolEnvironments(str(cache), lambda: package_source(Settings(), ROOT))
        self._requests = cache / "requests"
        self._requests.mkdir()

    def python(self, tool: PythonTool) -> str:
        """The interpreter of the tool's environment, which is made if need be."""
        assert tool.lock is not None
        python = self._environments.acquire(tool.lock, threading.Event()).python
        assert python is not None
        return python

    def call(
        self,
        tool: PythonTool,
        params: Mapping[str, Any],
        inputs: Mapping[str, Path],
        outputs: Mapping[str, Path],
        *,
        threads: int = 1,
        arguments: tuple[str, ...] = (),
    ) -> str:
        """Run the tool in a process of its own; what it wrote to stdout. Raises ToolError when it refuses."""
        request = self._requests / f"{len(os.listdir(self._requests))}.json"
        data = {
            "params": params,
            "inputs": {name: str(path) for name, path in inputs.items()},
            "outputs": {name: str(path) for name, path in outputs.items()},
            "threads": threads,
            "arguments": arguments,
        }
        request.write_text(json.dumps(data))
        runner = ROOT / "modelbuild/toolkit/request.py"
        command = [self.python(tool), "-I", "-B", str(runner), str(tool.source), str(request)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._requests, check=False)
        if done.returncode:
            raise ToolError(done.stderr)
        return done.stdout

    def close(self) -> None:
        """Let go of the environments."""
        self._environments.close()


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedTools]:
    tools = LockedTools(tmp_path_factory.mktemp("locked"))
    yield tools
    tools.close()
