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
from modelbuild.tool import Lock, PythonTool
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

    def python(self, lock: Lock) -> str:
        """The interpreter of an environment, which is made if need be."""
        python = self._environments.acquire(lock, threading.Event()).python
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
    ) -> str:
        """Run the tool; what it wrote to its log. Raises ToolError when it fails."""
        assert tool.lock is not None
        call = self._calls / str(len(os.listdir(self._calls)))
        (call / "home").mkdir(parents=True)
        request = {
            "params": params,
            "inputs": {name: str(path) for name, path in inputs.items()},
            "outputs": {name: str(path) for name, path in outputs.items()},
            "threads": threads,
            "packages": {
                name: self._environments.acquire(lock, threading.Event()).packages
                for name, lock in tool.packages
            },
        }
        (call / "request.json").write_text(json.dumps(request))
        runner = ROOT / "modelbuild/toolkit/request.py"
        done = self.run(tool.lock, [str(runner), str(tool.source), "request.json"], call, threads)
        log = done.stdout + done.stderr
        if done.returncode:
            raise ToolError(log[-4000:])
        return log

    def run(
        self, lock: Lock, arguments: list[str], directory: Path, threads: int = 1
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in the environment of `lock`."""
        home = directory / "home"
        variables = worker_environment(threads) | {"HOME": str(home), "TMPDIR": str(home)}
        return subprocess.run(
            [self.python(lock), "-s", "-P", "-B", *arguments],
            capture_output=True,
            text=True,
            cwd=directory,
            env=variables,
            check=False,
        )

    def close(self) -> None:
        """Let go of the environments."""
        self._environments.close()
