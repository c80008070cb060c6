"""Calls tools in the environments of their locks, which all tests of a session share."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelbuild.cli.package_source import package_source
from modelbuild.execution.tool_environment import ToolEnvironments
from modelbuild.execution.worker_pool import worker_environment
from modelbuild.loading.workspace import Settings
from modelbuild.tool import PythonTool
from modelbuild.toolkit.request import ToolError

ROOT = Path(__file__).resolve().parents[1]


class LockedTools:
    """Calls tools with the environment variables of a worker, each in a new process."""

    def __init__(self, directory: Path) -> None:
        self._environments = ToolEnvironments(
            str(directory / "cache"), lambda: package_source(Settings(), ROOT)
        )
        self._calls = directory / "calls"
        self._calls.mkdir()

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
        """Run the tool; what it wrote to stdout. Raises ToolError when it fails."""
        call = self._calls / str(len(os.listdir(self._calls)))
        (call / "home").mkdir(parents=True)
        request = {
            "params": params,
            "inputs": {name: str(path) for name, path in inputs.items()},
            "outputs": {name: str(path) for name, path in outputs.items()},
            "threads": threads,
            "arguments": arguments,
            "packages": {
                name: self._environments.acquire(lock, threading.Event()).packages
                for name, lock in tool.packages
            },
        }
        (call / "request.json").write_text(json.dumps(request))
        runner = ROOT / "modelbuild/toolkit/request.py"
        done = self.run(tool, [str(runner), str(tool.source), "request.json"], call, threads)
        if done.returncode:
            raise ToolError((done.stdout + done.stderr)[-4000:])
        assert set(os.listdir(call)) == {"home", "request.json"}, "the tool made what is no output"
        return done.stdout

    def run(
        self, tool: PythonTool, arguments: list[str], directory: Path, threads: int = 1
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in the environment of `tool`."""
        home = directory / "home"
        variables = worker_environment(threads) | {"HOME": str(home), "TMPDIR": str(home)}
        return subprocess.run(
            [self.python(tool), "-s", "-P", "-B", *arguments],
            capture_output=True,
            text=True,
            cwd=directory,
            env=variables,
            check=False,
        )

    def close(self) -> None:
        """Let go of the environments."""
        self._environments.close()
