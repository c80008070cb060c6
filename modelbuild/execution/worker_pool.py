"""WorkerPool: starts workers and runs actions in them, from many threads at once."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import modelbuild
from modelbuild.errors import EnvironmentFailure
from modelbuild.execution.executor import Progress

_CANCEL_POLL_MS = 100
_GIVE_UP_POLLS = 12
"""A worker that is still importing cannot answer; a cancelled action waits this long for it, in polls."""

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What a worker has imported. Shell commands share the one that has imported nothing.

    A worker imports with one thread, whatever its actions may use: a library that starts threads when it is
    imported must not be forked. torch is told an action's number of threads in the child.
    interpreter: of an isolated environment; empty for that of modelbuild.
    """

    python: bool
    preload: tuple[str, ...] = ()
    interpreter: str = ""


SHELL = WorkerKind(python=False)


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a child ended. status: its exit code, negative for the signal that killed it."""

    status: int
    peak_rss_bytes: int
    cpu_s: float
    wall_s: float
    cancelled: bool = False


class WorkerDied(Exception):
    """The worker ended before its child did, by a signal or the kernel's lack of memory."""


class WorkerPool:
    """One worker for each kind, started when first needed."""

    def __init__(
        self,
        warn: Warn = lambda _: None,
        *,
        read_only: Sequence[str] = (),
        writable: Sequence[str] = (),
    ) -> None:
        """read_only, writable: directories that actions cannot and, inside of those, can write to."""
        self._warn = warn
        self._read_only = tuple(read_only)
        self._writable = tuple(writable)
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._workers: dict[WorkerKind, _Worker] = {}
        self._closed = False

    def start(self, kind: WorkerKind) -> _Worker:
        """The worker of `kind`; importing goes on while the caller does something else."""
        with self._lock:
            if self._closed:
                raise EnvironmentFailure("the build is being ended")
            worker = self._workers.get(kind)
            if worker is None or worker.process.poll() is not None:
                if worker is not None:
                    worker.channel.close()
                worker = self._workers[kind] = _Worker(kind, self._read_only, self._writable)
            return worker

    def run(
        self,
        kind: WorkerKind,
        request: Mapping[str, Any],
        cancel: threading.Event,
        on_progress: Callable[[Progress], None],
    ) -> WorkerExit:
        """Run one request to its end. Raises WorkerDied."""
        worker = self.start(kind)
        reports = kind.python or bool(request.get("reports"))
        with _Call(worker, request, reports=reports) as call:
            try:
                exit_ = call.wait(cancel, on_progress)
            except WorkerDied as error:
                raise WorkerDied(worker.last_words()) from error
        for warning in worker.warnings():
            with self._lock:
                new = warning not in self._warned
                self._warned.add(warning)
            if new:
                self._warn(warning)
        return exit_

    def close(self) -> None:
        """End every worker and whatever still runs in them."""
        with self._lock:
            self._closed = True
            workers = list(self._workers.values())
            self._workers.clear()
        for worker in workers:
            worker.channel.close()
        for worker in workers:
            worker.end()


class _Worker:
    """One worker process, as modelbuild sees it."""

    def __init__(self, kind: WorkerKind, read_only: Sequence[str], writable: Sequence[str]) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stderr = os.memfd_create("worker-stderr")
        self._ready: list[str] | None = None
        self._ready_lock = threading.Lock()
        package = os.path.dirname(os.path.abspath(modelbuild.__file__))
        options = {
            "python": kind.python,
            "preload": list(kind.preload),
            "package": package,
            "read_only": list(read_only),
            "writable": list(writable),
        }
        # Shell workers skip site-packages altogether. -I would ignore PYTHONHASHSEED.
        flags = ["-s", "-P"] if kind.python else ["-I", "-S"]
        if kind.interpreter:
            flags.append("-B")  # An environment stays as it was made.
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
        try:
            self.process = subprocess.Popen(
                [
                    kind.interpreter or sys.executable,
                    *flags,
                    script,
                    str(theirs.fileno()),
                    json.dumps(options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=(theirs.fileno(),),
                env=worker_environment(threads=1),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self.channel.close()
            os.close(self._stderr)
            python = kind.interpreter or sys.executable
            raise EnvironmentFailure(
                f"`{python}`, which runs actions, cannot be started: {error.strerror}"
            ) from error
        finally:
            theirs.close()

    def warnings(self) -> list[str]:
        """What the worker said when it was ready."""
        with self._ready_lock:
            if self._ready is None:
                try:
                    ready = json.loads(self.channel.recv(1 << 18, socket.MSG_DONTWAIT))
                except (BlockingIOError, ConnectionError, ValueError, OSError):
                    return []
                self._ready = [f"a preloaded module cannot be imported: {each}" for each in ready["failures"]]
                if ready["network"]:
                    self._ready.append(f"actions are not cut off from the network: {ready['network']}")
                if ready["files"]:
                    self._ready.append(
                        f"actions could write to their inputs, which is noticed afterwards: {ready['files']}"
                    )
            return self._ready

    def last_words(self) -> str:
        """The end of the worker's stderr."""
        size = os.fstat(self._stderr).st_size
        return os.pread(self._stderr, 4096, max(0, size - 4096)).decode(errors="replace").strip()

    def end(self) -> None:
        """Wait for the end that closing the channel asks for; insist after a second."""
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._stderr)


class _Call:
    """One action in a worker: a socket for its end, a pipe for its progress."""

    def __init__(self, worker: _Worker, request: Mapping[str, Any], *, reports: bool) -> None:
        self._mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._progress = -1
        descriptors = [theirs.fileno()]
        try:
            if reports:
                self._progress, write = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self._progress, False)
                os.set_blocking(write, False)
                descriptors.append(write)
            with contextlib.suppress(ConnectionError):  # `wait` finds the closed socket.
                socket.send_fds(worker.channel, [json.dumps(request).encode()], descriptors)
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._mine.close()
        if self._progress >= 0:
            os.close(self._progress)

    def wait(self, cancel: threading.Event, on_progress: Callable[[Progress], None]) -> WorkerExit:
        poller = select.poll()
        poller.register(self._mine, select.POLLIN)
        if self._progress >= 0:
            poller.register(self._progress, select.POLLIN)
        mine, pending, cancelled = self._mine.fileno(), b"", 0
        while True:
            for descriptor, events in poller.poll(_CANCEL_POLL_MS):
                if descriptor == mine:
                    with contextlib.suppress(OSError):  # Reports that came with the end.
                        deliver(pending + os.read(self._progress, 1 << 16), on_progress)
                    return self._received(cancelled=cancelled > 0)
                if events & select.POLLIN:
                    pending = deliver(pending + os.read(self._progress, 1 << 16), on_progress)
                else:
                    poller.unregister(self._progress)
            if cancel.is_set():
                if not cancelled:
                    with contextlib.suppress(OSError):
                        self._mine.send(b"cancel")
                cancelled += 1
                if cancelled > _GIVE_UP_POLLS:
                    return WorkerExit(-9, 0, 0.0, 0.0, cancelled=True)

    def _received(self, *, cancelled: bool) -> WorkerExit:
        try:
            answer = self._mine.recv(1 << 16)
        except ConnectionError:
            answer = b""
        if not answer:
            raise WorkerDied
        return WorkerExit(**json.loads(answer), cancelled=cancelled)


def deliver(data: bytes, on_progress: Callable[[Progress], None]) -> bytes:
    """Hand on the whole lines of `data`; answers the rest. A line that is no report is dropped."""
    *lines, rest = data.split(b"\n")
    for line in lines:
        try:
            raw = json.loads(line)
            metrics = {str(name): _metric(value) for name, value in raw["metrics"].items()}
            report = Progress(int(raw["step"]), int(raw["total"]), str(raw["unit"]), metrics)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        on_progress(report)
    return rest[-(1 << 16) :]


def _metric(value: Any) -> float | str:
    """A number, or text: JSON has no number for the loss of a training that diverged."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return value
    return str(value)


def worker_environment(threads: int) -> dict[str, str]:
    """What a tool finds in its environment, but for HOME and TMPDIR: constants and its thread count.

    No PATH: a program that a Python tool finds there would be in no key. SOURCE_DATE_EPOCH is the
    earliest moment that zip files can name.
    """
    count = str(threads)
    return {
        "PATH": "/nonexistent",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "315532800",
        "OMP_NUM_THREADS": count,
        # Threads that wait for each other spin for microseconds, then sleep. By default they spin for
        # milliseconds, and two of them on a busy machine stand in each other's way.
        "GOMP_SPINCOUNT": "1000",
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
