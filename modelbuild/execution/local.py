"""LocalExecutor: runs actions on this machine, each in its own process and directory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Self

from modelbuild.actions.action import Action
from modelbuild.actions.result import ActionResult
from modelbuild.cache.storage_failure import storage_failure
from modelbuild.digest import Digest, digest_file
from modelbuild.errors import ActionFailed, AnalysisError, CacheError, Interrupted, ModelbuildError
from modelbuild.execution.collect import BadOutput, OutputCollector, OutputPolicy
from modelbuild.execution.device_runner import DeviceCall, DevicePackages, DeviceRunner, stage_tool
from modelbuild.execution.devices import Devices
from modelbuild.execution.diagnosis import LOG_LINES, diagnose, log_notes
from modelbuild.execution.environment import ToolIdentities
from modelbuild.execution.executor import ExecutionContext, LocalBlobs, PreparedAction, Progress
from modelbuild.execution.host_program import parse_program
from modelbuild.execution.in_process import lay_out_tree, write_file
from modelbuild.execution.materialize import ActionDirectory, parent_folders
from modelbuild.execution.tool_environment import ToolEnvironment, ToolEnvironments
from modelbuild.execution.tool_request import REQUEST, tool_request
from modelbuild.execution.work_area import WorkArea, remove_tree
from modelbuild.execution.worker_pool import (
    SHELL,
    Warn,
    WorkerDied,
    WorkerExit,
    WorkerKind,
    WorkerPool,
    worker_environment,
)
from modelbuild.tool import Lock, PythonTool, ShellTool, TreeTool, WriteTool

_FULL_BYTES = 256 << 10
"""A disk with less than this free when a tool fails is full."""

_MAX_ARGUMENT_BYTES = 100_000
"""The kernel takes 128 KiB in one argument; longer commands go through a file."""

_GENRULE_SETUP = "set -e\nset -u\nset -o pipefail\n"
"""The options Bazel's genrule-setup.sh sets."""


@dataclass(frozen=True, slots=True)
class _Equipment:
    """What a tool runs with. packages: name -> directory. programs: name -> absolute path.

    device: where it runs, if not in a worker, and what it imports there.
    """

    kind: WorkerKind
    packages: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, str] = field(default_factory=dict)
    device: tuple[DeviceRunner, DevicePackages] | None = None


class LocalExecutor:
    """An Executor.

    Python tools may leave nothing in their directory but their outputs. Shell commands, as in Bazel, may
    leave what they like beside their inputs, and it is dropped; below `modelbuild-out/`, where outputs
    lie, an undeclared file is an error. Scripts and programs that shell commands make are executable.
    """

    def __init__(
        self,
        cache_dir: str,
        blobs: LocalBlobs,
        *,
        identities: ToolIdentities | None = None,
        environments: ToolEnvironments | None = None,
        workspace: str | None = None,
        warn: Warn = lambda _: None,
    ) -> None:
        """cache_dir: absolute; actions run below its `work/`, so that outputs can be renamed into it.

        identities: those the keys were made with; a tool that changed since is found out after its run.
        environments: where the environments of tools with a lock come from.
        workspace: the root, which no action can write to; nor to the cache, but for its own directory.
        warn: called with what the user should know once, such as that the network cannot be cut off.
        """
        self._area = WorkArea(os.path.join(cache_dir, "work"))
        self._blobs = blobs
        self._identities = identities
        self._environments = environments or ToolEnvironments(cache_dir, warn=warn)
        self._scratch = os.path.join(cache_dir, "scratch")
        self._pool = WorkerPool(
            warn,
            read_only=(cache_dir,) if workspace is None else (workspace, cache_dir),
            writable=(self._area.path, self._scratch),
        )
        self._devices = Devices(self._environments, self._pool)

    def open(self) -> None:
        """Claim the work directory, and clear it of what a killed build left. Raises CacheError."""
        self._area.open()
        with contextlib.suppress(OSError):  # As above: a read-only cache is no error yet.
            os.makedirs(self._scratch, exist_ok=True)

    def close(self) -> None:
        """End all children. Actions that run meanwhile raise."""
        self._environments.close()
        self._pool.close()
        self._area.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self, action: Action) -> None:
        """Start the worker that `action` will need, so that it imports while others run.

        Its environments come first, where they are not made yet; what goes wrong is told when it runs.
        """
        tool = action.tool
        if isinstance(tool, ShellTool):
            self._pool.start(SHELL)
        if not isinstance(tool, PythonTool):
            return
        with contextlib.suppress(ModelbuildError):
            if tool.lock is None and action.runner is None:
                self._pool.start(WorkerKind(python=True, preload=tool.preload))
            for lock in tool.locks:
                made = self._environments.start(lock)
                if lock is tool.lock and action.runner is None:
                    made.add_done_callback(lambda future: self._preload(future, tool.preload))

    def _preload(self, made: Future[ToolEnvironment], preload: tuple[str, ...]) -> None:
        if not made.cancelled() and made.exception() is None:
            with contextlib.suppress(ModelbuildError):  # The build is being ended.
                self._pool.start(
                    WorkerKind(python=True, preload=preload, interpreter=made.result().python or "")
                )

    def execute(self, prepared: PreparedAction, ctx: ExecutionContext) -> ActionResult | None:
        """See Executor."""
        tool = prepared.action.tool
        started = time.monotonic()
        try:
            if isinstance(tool, WriteTool):
                made = write_file(prepared, self._blobs, self._area)
            elif isinstance(tool, TreeTool):
                made = lay_out_tree(prepared, self._blobs)
            else:
                return self._run(prepared, ctx)
            return ActionResult(made, duration_s=time.monotonic() - started)
        except OSError as error:
            raise storage_failure(error, self._area.path) from error

    def _run(self, prepared: PreparedAction, ctx: ExecutionContext) -> ActionResult:
        action = prepared.action
        equipment = self._equip(action, ctx)
        sources = [name for name, artifact in action.inputs.items() if artifact.is_source]
        directory = self._area.take(prepared.key, parent_folders(prepared.inputs, action.outputs))
        try:
            directory.place(prepared.inputs, sources, self._blobs)
            exit_ = self._spawn(prepared, ctx, directory, equipment)
            if exit_.cancelled or (ctx.cancel.is_set() and exit_.status != 0):
                raise Interrupted(f"`{action.owner}` was interrupted")
            self._check_inputs(action, directory)
            self._check_tool(action)
            if exit_.status != 0:
                raise self._failure(action, exit_, directory, _publish_log(directory, ctx))
            try:
                outputs = OutputCollector(directory, self._blobs, _policy(action)).collect(action.outputs)
            except BadOutput as error:
                raise ActionFailed(
                    f"`{action.owner}` did not make what it declares: {error.problems[0]}",
                    notes=(*error.problems[1:], *log_notes(_publish_log(directory, ctx))),
                ) from error
            log = self._keep_log(directory.log)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(ctx.log_path)  # Of a failure before.
        finally:
            self._area.give_back(directory)
        if ctx.scratch is not None:
            remove_tree(ctx.scratch)
        return ActionResult(outputs, log, exit_.wall_s, exit_.peak_rss_bytes)

    def _equip(self, action: Action, ctx: ExecutionContext) -> _Equipment:
        """What the action's tool runs with. Waits for environments that are not made yet."""
        tool = action.tool
        if not isinstance(tool, PythonTool):
            return _Equipment(SHELL)
        environments: dict[Lock, ToolEnvironment] = {}

        def wait_for(name: str, count: int) -> None:
            ctx.on_progress(Progress(0, count, f"packages of {name}", {}))

        for lock in tool.locks:
            file = self._environments.read(lock)
            if not self._environments.start(lock).done():
                wait_for(file.name, len(file.detail))
            environments[lock] = self._environments.acquire(lock, ctx.cancel)
        if action.runner is not None:
            device = self._devices.get(action.runner, ctx.cancel, wait_for)
            return _Equipment(SHELL, device=(device, self._devices.packages(tool.lock, ctx.cancel)))
        python = environments[tool.lock].python if tool.lock is not None else ""
        if python is None:
            raise AnalysisError(
                f"the lock of `{action.owner}`'s tool is for another machine and cannot run here"
            )
        return _Equipment(
            WorkerKind(python=True, preload=tool.preload, interpreter=python),
            {name: environments[lock].packages for name, lock in tool.packages},
            {program.name: program.path() for program in map(parse_program, tool.programs)},
        )

    def _spawn(
        self,
        prepared: PreparedAction,
        ctx: ExecutionContext,
        directory: ActionDirectory,
        equipment: _Equipment,
    ) -> WorkerExit:
        action = prepared.action
        environment = worker_environment(action.threads) | {"HOME": directory.tmp, "TMPDIR": directory.tmp}
        request: dict[str, Any] = {
            "cwd": directory.root,
            "directory": directory.base,
            "log": directory.log,
            "environment": environment,
        }
        if isinstance(action.tool, PythonTool):
            if ctx.scratch is not None:
                os.makedirs(ctx.scratch, exist_ok=True)
            with open(os.path.join(directory.root, REQUEST), "w", encoding="utf-8") as stream:
                data = tool_request(action, ctx.scratch)
                # As inputs: relative, so that a path which ends up in an output is the same everywhere.
                data["packages"] = directory.link_packages(equipment.packages)
                data["programs"] = dict(equipment.programs)
                json.dump(data, stream)
            request |= {"tool": str(action.tool.source), "threads": action.threads}
        else:
            # As Bazel: the C locale, which also spares every program two dozen look-ups of locale files.
            del environment["LANG"]
            environment["PATH"] = "/usr/bin:/bin"
            request["argv"] = _shell_arguments(str(action.params["command"]), directory)
        try:
            if equipment.device is not None and isinstance(action.tool, PythonTool):
                device, packages = equipment.device
                tool = stage_tool(action.tool, directory.base)
                call = DeviceCall(directory.base, directory.log, tool, packages, action.threads)
                return device.run(call, ctx.cancel, ctx.on_progress)
            return self._pool.run(equipment.kind, request, ctx.cancel, ctx.on_progress)
        except FileNotFoundError as error:
            raise storage_failure(error, self._area.path) from error
        except WorkerDied as error:
            if ctx.cancel.is_set():
                raise Interrupted(f"`{action.owner}` was interrupted") from error
            raise ActionFailed(
                f"`{action.owner}` lost the process that runs it",
                notes=(*str(error).splitlines()[-LOG_LINES:], *log_notes(_publish_log(directory, ctx))),
                hint="the machine may be short of memory: try a smaller `--jobs`",
            ) from error

    def _check_inputs(self, action: Action, directory: ActionDirectory) -> None:
        changed = directory.changed()
        if not changed:
            return
        for each in changed:
            if not each.is_source:
                # The store hashes a blob whose stat changed, and quarantines it if it is bad.
                self._blobs.path(each.digest, executable=each.executable)
        names = ", ".join(f"`{each.name}`" for each in changed)
        if all(each.is_source for each in changed):
            raise ActionFailed(
                f"{names} changed while the build read it",
                notes=(f"`{action.owner}` was running, and its result is dropped",),
                hint="build again; if it happens each time, the action itself writes to its input",
            )
        raise ActionFailed(
            f"`{action.owner}` wrote to its input {names}",
            notes=("inputs are shared with the cache and the workspace", "a damaged blob is made anew"),
            hint="copy the input to the output or to $TMPDIR, and change the copy",
        )

    def _check_tool(self, action: Action) -> None:
        changed = (
            self._identities.changed(action.tool, action.params, action.runner) if self._identities else []
        )
        if changed:
            raise ActionFailed(
                f"the tool of `{action.owner}` changed while the build ran it",
                notes=tuple(changed),
                hint="build again",
            )

    def _failure(
        self, action: Action, exit_: WorkerExit, directory: ActionDirectory, log_path: str
    ) -> ModelbuildError:
        disk = os.statvfs(self._area.path)
        if disk.f_bavail * disk.f_frsize < _FULL_BYTES:
            # Whatever the tool says, if its log could be written at all: it is not the one at fault.
            return CacheError(
                f"the disk of the cache filled up while `{action.owner}` ran",
                notes=log_notes(log_path),
                hint="free some space with `modelbuild cache gc --max-size 10G`, or move the cache with "
                "`--cache-dir`",
            )
        return diagnose(action, exit_.status, directory.placed, log_path)

    def _keep_log(self, path: str) -> Digest | None:
        """What a successful tool said becomes a blob of its result."""
        try:
            if os.path.getsize(path) == 0:
                return None
        except FileNotFoundError:
            return None
        digest = digest_file(path)
        self._blobs.put_file(path, digest)
        return digest


def _publish_log(directory: ActionDirectory, ctx: ExecutionContext) -> str:
    """Keep the log of an action that failed where people find it; the path."""
    with contextlib.suppress(OSError):  # Of a full disk the failure itself tells.
        shutil.move(directory.log, ctx.log_path)
    return ctx.log_path


def _policy(action: Action) -> OutputPolicy:
    if isinstance(action.tool, PythonTool):
        return OutputPolicy(ignored=frozenset({REQUEST}), refuse_pickles=True)
    stated = bool(action.params.get("executable"))
    return OutputPolicy(scope="modelbuild-out", programs=True, executable=stated)


def _shell_arguments(command: str, directory: ActionDirectory) -> list[str]:
    script = _GENRULE_SETUP + command
    encoded = script.encode()
    if len(encoded) <= _MAX_ARGUMENT_BYTES:
        return ["/bin/bash", "-c", script]
    path = os.path.join(directory.base, "command.sh")
    with open(path, "wb") as stream:
        stream.write(encoded)
    return ["/bin/bash", path]
