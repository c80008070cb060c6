"""`modelbuild run`: build a target, then call it with what the user typed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from modelbuild.actions.graph import RequestedTarget
from modelbuild.analysis.analyze import AnalyzedTarget
from modelbuild.driver.analysis import load_and_analyze
from modelbuild.driver.build import build
from modelbuild.driver.request import BuildRequest
from modelbuild.errors import AnalysisError, ExitCode, UsageError
from modelbuild.events import EventSink
from modelbuild.execution.device_runner import DeviceCall, stage_tool
from modelbuild.execution.devices import Devices
from modelbuild.execution.environment import check_device_tool
from modelbuild.execution.host_program import parse_program
from modelbuild.execution.tool_environment import ToolEnvironments
from modelbuild.execution.worker_pool import WorkerPool
from modelbuild.provider import RunInfo
from modelbuild.runner import Runner
from modelbuild.runtime_toolchain import DeviceRunInfo
from modelbuild.toolkit import request as toolkit_request

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def run(request: BuildRequest, arguments: Sequence[str], sink: EventSink, say: Callable[[str], None]) -> int:
    """The exit code of the target's program, or of the build when that fails.

    say: tells a person what happens between the build, whose last event has been sent, and the program.
    Raises UsageError when the pattern names several targets, or one that cannot be run.
    """
    targets, analysis = load_and_analyze(request, say)
    request = replace(request, toolchain_debug=False)  # It has been said.
    if len(targets.requested) != 1 or len(analysis.requested) != 1:
        raise UsageError(
            f"`run` takes one target, and `{' '.join(request.patterns)}` names {len(analysis.requested)}"
        )
    requested = analysis.graph.requested[0]
    target = analysis.requested[requested.label]
    info = target.providers.get(RunInfo)
    device = target.providers.get(DeviceRunInfo)
    if not isinstance(info, RunInfo) and isinstance(device, DeviceRunInfo):
        reason = device.toolchain.why_not_run(device.platform)
        raise UsageError(f"`{target.label}` cannot be run here: {reason}")
    if not isinstance(info, RunInfo) and len(requested.files) != 1:
        raise _not_runnable(target)
    outcome = build(request, sink)
    if outcome.exit_code != ExitCode.OK:
        return int(outcome.exit_code)
    if isinstance(info, RunInfo):
        if info.runner is not None and info.runner.kind != "local":
            return _call_device(request, info, info.runner, arguments, say)
        return _call_tool(request, requested, info, arguments, say)
    return _call_program(request.root, target, requested, arguments)


def _call_tool(
    request: BuildRequest,
    requested: RequestedTarget,
    info: RunInfo,
    arguments: Sequence[str],
    say: Callable[[str], None],
) -> int:
    root, tool = request.root, info.tool
    with (
        contextlib.closing(
            ToolEnvironments(str(request.cache_dir), request.package_source, note=say, warn=say)
        ) as environments,
        tempfile.TemporaryDirectory(prefix="modelbuild-run-") as directory,
    ):
        found = {lock: environments.acquire(lock, threading.Event()) for lock in tool.locks}
        programs = map(parse_program, tool.programs)
        data = {
            "params": dict(info.params),
            "inputs": {name: str(root / str(artifact)) for name, artifact in info.inputs.items()},
            "outputs": {},
            "threads": len(os.sched_getaffinity(0)),
            "arguments": list(arguments),
            "packages": {name: found[lock].packages for name, lock in tool.packages},
            "programs": {program.name: program.path() for program in programs},
        }
        request_file = Path(directory) / "request.json"
        request_file.write_text(json.dumps(data))
        command = [sys.executable, "-P", "-m", "modelbuild.toolkit.request"]
        if tool.lock is not None:
            python = found[tool.lock].python
            if python is None:
                raise AnalysisError(
                    f"the lock of `{requested.label}`'s tool is for another machine and cannot run here",
                    hint="is it for a device whose platform names no `runner`?",
                )
            # -E: a PYTHONPATH would bring packages that the lock does not have.
            command = [python, "-E", "-s", "-P", "-B", toolkit_request.__file__]
        return subprocess.run(
            [*command, str(tool.source), str(request_file)], check=False, env={**_inherited(), **_OFFLINE}
        ).returncode


def _call_device(
    request: BuildRequest, info: RunInfo, runner: Runner, arguments: Sequence[str], say: Callable[[str], None]
) -> int:
    """Lay the call out as an action's, and have the runner make it."""
    tool, root = info.tool, request.root
    check_device_tool(tool, runner)
    with (
        contextlib.closing(
            ToolEnvironments(str(request.cache_dir), request.package_source, note=say, warn=say)
        ) as environments,
        contextlib.closing(WorkerPool()) as pool,
        tempfile.TemporaryDirectory(prefix="modelbuild-run-") as base,
    ):
        devices, never = Devices(environments, pool), threading.Event()
        device, packages = devices.get(runner, never), devices.packages(tool.lock, never)
        os.makedirs(f"{base}/root/in")
        os.mkdir(f"{base}/tmp")  # noqa: S108 - not the shared /tmp
        for name, artifact in info.inputs.items():
            os.symlink(root / str(artifact), f"{base}/root/in/{name}")
        threads = len(os.sched_getaffinity(0))
        data = {
            "params": dict(info.params),
            "inputs": {name: f"in/{name}" for name in info.inputs},
            "outputs": {},
            "threads": threads,
            "arguments": list(arguments),
        }
        Path(f"{base}/root/request.json").write_text(json.dumps(data))
        call = DeviceCall(base, f"{base}/log", stage_tool(tool, base), packages, threads)
        return device.interact(call)


def _call_program(
    root: Path, target: AnalyzedTarget, requested: RequestedTarget, arguments: Sequence[str]
) -> int:
    program = root / str(requested.files[0])
    if not os.access(program, os.X_OK) or program.is_dir():
        raise _not_runnable(target)
    return subprocess.run([str(program), *arguments], check=False, env=_inherited()).returncode


def _inherited() -> dict[str, str]:
    """A program that a person starts gets that person's environment; no action ever does."""
    return dict(os.environ)


def _not_runnable(target: AnalyzedTarget) -> UsageError:
    return UsageError(
        f"`{target.label}` cannot be run: it is a `{target.rule}`",
        hint="`run` takes device binaries (`gguf`, `onnx`) and executable files",
    )
