"""One ssh process, the agent at its other end, and the frames between them (see device_agent.py)."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

from modelbuild.errors import ActionFailed, EnvironmentFailure
from modelbuild.execution import device_agent
from modelbuild.execution.device_runner import FLAGS, DeviceCall
from modelbuild.execution.executor import Progress
from modelbuild.execution.worker_pool import WorkerExit, deliver, worker_environment

OnOutput = Callable[[bytes, bytes], None]
"""Takes what the tool said: `O` or `E` for stdout and stderr, and the bytes."""


_POLL_S = 0.1
_END_S = 2.0


class ConnectionEnded(Exception):
    """The agent is gone. code: ssh's exit code. said: the lines of stderr."""

    def __init__(self, code: int, said: tuple[str, ...]) -> None:
        super().__init__(code)
        self.code = code
        self.said = said


class SshConnection:
    """Made for one call. Everything raises ConnectionEnded when the other end is gone."""

    def __init__(self, command: Sequence[str], cancel: threading.Event) -> None:
        """command: ssh and its arguments. cancel: ends the connection, and with it the call."""
        self._cancel = cancel
        self._over = threading.Event()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the connection
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,  # Ctrl-C is for modelbuild, which then ends the call.
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to: IO[bytes] = self._process.stdin
        self._from: IO[bytes] = self._process.stdout
        self._watcher = threading.Thread(target=self._watch, name="ssh-cancel", daemon=True)
        self._watcher.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.kill()
        self._process.wait()
        self._watcher.join()
        for stream in (self._to, self._from, self._stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def greet(self, call: DeviceCall) -> Mapping[str, Any]:
        """Send the agent and say what is to come; what it says of the device."""
        header = {
            "packages": call.packages.digest,
            "environment": worker_environment(call.threads),
            "flags": list(FLAGS),
            "script": list(call.script),
        }
        try:
            self._to.write(agent())
            self._send(b"H", json.dumps(header).encode())
            self._to.flush()
        except BrokenPipeError:
            raise self._ended() from None
        self._pass_greeting()
        kind, content = self._receive()
        if kind != b"R":
            raise self._ended()
        ready: Mapping[str, Any] = json.loads(content)
        return ready

    def send_files(self, kind: bytes, folders: Mapping[str, str]) -> None:
        """An archive of directories: name in it -> path. Links are followed: the device lacks their ends."""
        leaving = _Leaving(lambda data: self._send(kind, data))
        try:
            with tarfile.open(fileobj=leaving, mode="w|", dereference=True) as archive:  # type: ignore[call-overload]
                for name, folder in folders.items():
                    archive.add(folder, arcname=name, filter=_anybodys)
            self._send(b".", b"")
            self._to.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def wait(self, root: str, on_progress: Callable[[Progress], None], on_output: OnOutput) -> WorkerExit:
        """Hand on what is said until the call has ended; its outputs then lie in `root`."""
        pending = b""
        while True:
            kind, content = self._receive()
            if kind == b"P":
                pending = deliver(pending + content, on_progress)
            elif kind in (b"O", b"E"):
                on_output(kind, content)
            elif kind == b"X":
                exit_ = WorkerExit(**json.loads(content))
                _unpack(_Arriving(self._receive), root)
                return exit_
            else:
                raise self._ended()

    def _watch(self) -> None:
        while not self._over.wait(_POLL_S):
            if self._cancel.is_set():
                self._process.kill()
                return

    def _send(self, kind: bytes, content: bytes) -> None:
        self._to.write(struct.pack(">cI", kind, len(content)) + content)

    def _receive(self) -> tuple[bytes, bytes]:
        head = self._from.read(5)
        kind, size = struct.unpack(">cI", head) if len(head) == 5 else (b"", 1)
        content = self._from.read(size)
        if len(content) < size:
            raise self._ended()
        return kind, content

    def _pass_greeting(self) -> None:
        """What the login shell printed, if anything: a `.bashrc` may say good morning."""
        said = b""
        while not said.endswith(device_agent.MARK):
            byte = self._from.read(1)
            if not byte:
                raise self._ended()
            said = said[-len(device_agent.MARK) :] + byte

    def _ended(self) -> ConnectionEnded:
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            code = 0
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace")
        return ConnectionEnded(code, tuple(line for line in text.splitlines() if line.strip()))


def agent() -> bytes:
    """The program that is sent."""
    with open(device_agent.__file__, "rb") as stream:
        return stream.read()


@dataclass(frozen=True, slots=True)
class _Leaving:
    """An archive that is sent while tarfile writes it."""

    send: Callable[[bytes], None]

    def write(self, data: bytes) -> int:
        self.send(bytes(data))
        return len(data)


class _Arriving:
    """An archive that arrives in frames, as a file that tarfile reads."""

    def __init__(self, receive: Callable[[], tuple[bytes, bytes]]) -> None:
        self._receive = receive
        self._pending = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._pending) < size and not self._ended:
            kind, content = self._receive()
            self._ended = kind == b"."
            self._pending += content
        found, self._pending = self._pending[:size], self._pending[size:]
        return found


def _unpack(arriving: _Arriving, root: str) -> None:
    with tarfile.open(fileobj=arriving, mode="r|") as archive:  # type: ignore[call-overload]
        try:
            archive.extractall(root, members=_new(archive, root), filter="data")
        except tarfile.FilterError as error:
            raise ActionFailed(f"an output was made on the device that cannot be taken: {error}") from error
    while arriving.read(device_agent.CHUNK):
        pass


def _new(archive: tarfile.TarFile, root: str) -> Iterator[tarfile.TarInfo]:
    """What is there already stays: an input is a link to a blob."""
    for member in archive:
        if os.path.lexists(os.path.join(root, member.name)):
            raise EnvironmentFailure(f"a device sent back `{member.name}`, which it was given")
        yield member


def _anybodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Who owns it here means nothing there, and whoever it is there may remove it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o200
    return member
