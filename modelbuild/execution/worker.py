"""The worker: a small single-threaded process that forks one child for each action.

Started by worker_pool as a script, with the interpreter of the build or of a tool's environment. It imports
the modules it is told to preload (importing torch costs seconds, a fork milliseconds), enters namespaces of
its own (see isolation.py), and then only forks: a process that has computed
something may hold locks and threads that its children would hang on. Standard library only; a worker for
shell commands imports nothing else.

Protocol, over a SOCK_SEQPACKET pair: each packet is one JSON request with one or two descriptors, a
socket for the reply and a pipe for progress. Closing the socket, or a packet on it, ends the action.
When the main socket ends, because modelbuild exited or was killed, every child dies and so does this.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

GRACE_S = 0.7
"""Between SIGTERM and SIGKILL when an action is cancelled."""

_PR_SET_PDEATHSIG = 1
_SIGNALS = (
    *(signal.SIGPIPE, signal.SIGXFSZ),
    *(
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    ),
)
"""Python ignores the first two, nohup and scripts others; a command would inherit that."""
_PR_SET_CHILD_SUBREAPER = 36
_PACKET_BYTES = 1 << 18
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NOT_STARTED = 126
_PROGRESS = 3
"""The descriptor at which a spawned tool finds its progress pipe."""

Isolate = Callable[[], Any]
"""Calls isolation.isolate: the script learns where that is when it runs."""

RunTool = Callable[[dict[str, Any], int | None], NoReturn]
"""Runs a Python tool in a forked child: the request, and the descriptor of its progress pipe."""


class _Running:
    """One child: `reply` ends it when it closes, and gets its status when it ends."""

    __slots__ = ("directory", "kill_at", "pid", "reply", "started")

    def __init__(self, pid: int, reply: socket.socket, directory: str, started: float) -> None:
        self.pid = pid
        self.reply = reply
        self.directory = directory
        self.started = started
        self.kill_at = 0.0


class Worker:
    """The loop: takes requests, forks, reaps, kills."""

    def __init__(self, channel: socket.socket, run_tool: RunTool) -> None:
        self._channel = channel
        self._run_tool = run_tool
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._running: dict[int, _Running] = {}
        self._by_reply: dict[int, _Running] = {}
        self._poller = select.poll()
        self._children_file = f"/proc/self/task/{os.getpid()}/children"
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def prepare(self, preload: list[str], isolate: Isolate) -> dict[str, Any]:
        """Isolate, then import. Answers what could not be done."""
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.umask(0o022)
        isolated = isolate()
        failures = []
        gc.disable()
        for name in preload:
            try:
                importlib.import_module(name)
            except Exception as error:  # noqa: BLE001 - preloading is speed only; the tool will meet the error
                failures.append(f"{name}: {type(error).__name__}: {error}")
        gc.enable()
        gc.collect()
        gc.freeze()
        if preload:
            # Each child would finalize what the imports made (torch's operator libraries: 70 ms) at its exit.
            for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # noqa: SLF001
                finalizer.atexit = False
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        return {"network": isolated.network, "files": isolated.files, "failures": failures}

    def serve(self) -> None:
        """Serve until the main socket ends; then leave no process behind."""
        self._poller.register(self._channel, select.POLLIN)
        self._poller.register(self._wake_read, select.POLLIN)
        try:
            while True:
                for descriptor, _ in self._poller.poll(self._timeout_ms()):
                    if descriptor == self._channel.fileno():
                        if not self._accept():
                            return
                    elif descriptor == self._wake_read:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake_read, 4096)
                    elif descriptor in self._by_reply:
                        self._cancel(self._by_reply[descriptor])
                self._reap()
                self._kill_overdue()
        finally:
            self._kill_everything()

    def _timeout_ms(self) -> float | None:
        deadlines = [each.kill_at for each in self._running.values() if each.kill_at]
        return max(0.0, (min(deadlines) - time.monotonic()) * 1000) if deadlines else None

    def _accept(self) -> bool:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._channel, _PACKET_BYTES, 2)
        except ConnectionError:
            return False
        if not packet:
            return False
        request = json.loads(packet)
        reply = socket.socket(fileno=descriptors[0])
        progress = descriptors[1] if len(descriptors) > 1 else None
        started = time.monotonic()
        if "argv" in request:
            pid = self._spawn(request, progress)
        else:
            pid = os.fork()
            if pid == 0:
                self._become_tool(request, progress)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
        if progress is not None:
            os.close(progress)
        child = _Running(pid, reply, request["directory"], started)
        self._running[pid] = child
        self._by_reply[reply.fileno()] = child
        self._poller.register(reply, select.POLLIN)
        return True

    def _spawn(self, request: dict[str, Any], progress: int | None) -> int:
        """Start a shell command. posix_spawn copies no page tables: half the cost of fork and exec."""
        try:
            actions: list[Any] = [
                (os.POSIX_SPAWN_OPEN, 1, request["log"], _LOG_FLAGS, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ]
            environment = request["environment"]
            if progress is not None:
                actions.append((os.POSIX_SPAWN_DUP2, progress, _PROGRESS))
                environment = {**environment, "MODELBUILD_PROGRESS_FD": str(_PROGRESS)}
            os.chdir(request["cwd"])  # Nothing else runs in this process, so that its cwd is free.
            return os.posix_spawn(
                request["argv"][0],
                request["argv"],
                environment,
                file_actions=actions,
                setpgroup=0,
                setsigdef=_SIGNALS,
            )
        except OSError as error:
            # A child that says so, since whoever asked waits for the end of one.
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(OSError), open(request["log"], "w", encoding="utf-8") as log:
                    log.write(f"error: the command could not be started: {error}\n")
                os._exit(_NOT_STARTED)
            return pid

    def _become_tool(self, request: dict[str, Any], progress: int | None) -> NoReturn:
        """In the child: take the action's directory, environment and log, then run it."""
        try:
            os.setpgid(0, 0)
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(request["log"], _LOG_FLAGS, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            self._channel.close()
            for other in self._running.values():
                other.reply.close()
            os.chdir(request["cwd"])
            self._run_tool(request, progress)
        except BaseException as error:  # noqa: BLE001 - a forked child must not return into the loop
            os.write(2, f"error: the tool could not be started: {error}\n".encode())
            os._exit(_NOT_STARTED)

    def _cancel(self, child: _Running) -> None:
        self._poller.unregister(child.reply)
        del self._by_reply[child.reply.fileno()]
        with contextlib.suppress(OSError):  # Closing a socket with an unread packet would lose the answer.
            child.reply.recv(1 << 10)
        _signal_group(child.pid, signal.SIGTERM)
        child.kill_at = time.monotonic() + GRACE_S

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for child in self._running.values():
            if child.kill_at and child.kill_at <= now:
                _signal_group(child.pid, signal.SIGKILL)
                child.kill_at = now + GRACE_S

    def _reap(self) -> None:
        while True:
            try:
                # Leave the zombie until its group is dead, so that nobody else gets the number.
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            child = self._running.pop(info.si_pid, None)
            if child is not None:
                _signal_group(child.pid, signal.SIGKILL)
            _, status, usage = os.wait4(info.si_pid, 0)
            if child is not None:
                self._kill_orphans(child)
                self._answer(child, status, usage)

    def _answer(self, child: _Running, status: int, usage: resource.struct_rusage) -> None:
        if self._by_reply.pop(child.reply.fileno(), None) is not None:
            self._poller.unregister(child.reply)
        answer = {
            "status": os.waitstatus_to_exitcode(status),
            "peak_rss_bytes": usage.ru_maxrss * 1024,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "wall_s": time.monotonic() - child.started,
        }
        with contextlib.suppress(OSError):  # Nobody waits any more for a cancelled action.
            child.reply.send(json.dumps(answer).encode())
        child.reply.close()

    def _kill_orphans(self, ended: _Running) -> None:
        """Kill what `ended` left behind in sessions of its own; as subreaper we are its parent now."""
        while True:
            orphans = [pid for pid in self._children() if pid not in self._running]
            if self._running:
                orphans = [pid for pid in orphans if _belongs(pid, ended.directory)]
            if not orphans:
                return
            for pid in orphans:
                _kill(pid)
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _kill_everything(self) -> None:
        for pid in self._running:
            _signal_group(pid, signal.SIGKILL)
        self._running.clear()
        while children := self._children():
            for pid in children:
                _kill(pid)
            for pid in children:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _children(self) -> list[int]:
        try:
            with open(self._children_file, "rb", buffering=0) as stream:
                return [int(pid) for pid in stream.read().split()]
        except FileNotFoundError:  # A kernel without CONFIG_PROC_CHILDREN.
            return [pid for pid in _processes() if _parent(pid) == os.getpid()]


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _belongs(pid: int, directory: str) -> bool:
    """Whether an orphan comes from the action in `directory`: its environment or its cwd names it."""
    with contextlib.suppress(OSError):
        if os.readlink(f"/proc/{pid}/cwd").startswith(directory):
            return True
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as stream:
        return directory.encode() in stream.read()
    return False


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return int(stream.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _no_tools(_request: dict[str, Any], _progress: int | None) -> NoReturn:
    raise RuntimeError("this worker runs shell commands only")


def _import_modelbuild(package: str) -> None:
    """Import the package at `package`; what lies beside it is the host's and not the tool's."""
    spec = importlib.util.spec_from_file_location(
        "modelbuild", f"{package}/__init__.py", submodule_search_locations=[package]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["modelbuild"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def main() -> None:
    """Arguments: the descriptor of the socket, and as JSON what WorkerPool hands over."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    options = json.loads(sys.argv[2])
    run_tool: RunTool = _no_tools
    _import_modelbuild(options["package"])
    isolate = importlib.import_module("modelbuild.execution.isolation").isolate
    if options["python"]:
        run_tool = importlib.import_module("modelbuild.execution.tool_process").run_tool
    worker = Worker(channel, run_tool)
    ready = worker.prepare(options["preload"], lambda: isolate(options["read_only"], options["writable"]))
    with contextlib.suppress(ConnectionError):
        channel.send(json.dumps(ready).encode())
    worker.serve()


if __name__ == "__main__":
    main()
