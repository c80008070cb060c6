"""SshRunner: tools on a device that answers to ssh.

One connection makes one call: an agent is sent and started (device_agent.py), which takes the tool's files
and inputs, runs it, and sends back progress, words and outputs. Packages of a tool's lock stay on the device,
in ~/.cache/modelbuild, and are sent once. The device needs Linux and the Python that the packages are for.

ssh is the person's own, with their keys, agent and configuration; it never asks for anything.
"""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelbuild.errors import EnvironmentFailure
from modelbuild.execution.device_runner import DeviceCall
from modelbuild.execution.executor import Progress
from modelbuild.execution.host_program import find_program
from modelbuild.execution.ssh_connection import ConnectionEnded, OnOutput, SshConnection, agent
from modelbuild.execution.worker_pool import WorkerExit

_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
)
_NOTES = 6
_POLL_S = 0.1
_CANCELLED = WorkerExit(-9, 0, 0.0, 0.0, cancelled=True)
_SSH_FAILED = 255
_NO_PROGRAM = (126, 127)
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armv7l": "armv7", "armv8l": "armv7", "i686": "x86_32"}
"""What the kernel calls a CPU -> its value in `@platforms//cpu`, where they differ."""

_CAUSES = (
    ("host key verification failed", "is a machine that ssh does not know, or not the one that it knows"),
    ("permission denied", "lets nobody in with this person's keys"),
    ("could not resolve", "has a name that nobody knows"),
    ("connection refused", "refuses the connection"),
    ("timed out", "does not answer"),
    ("no route to host", "does not answer"),
)


@dataclass(frozen=True, slots=True)
class SshRunner:
    """A DeviceRunner. address: `user@host[:port]`. cpu: what its platform says it has.

    options: further `-o` options of ssh, for tests. board: held while a call runs, so that a build makes one
    call at a time: a board is small, and its times are to be its own.
    """

    address: str
    cpu: str
    options: tuple[str, ...] = ()
    board: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self, call: DeviceCall, cancel: threading.Event, on_progress: Callable[[Progress], None]
    ) -> WorkerExit:
        """See DeviceRunner."""
        with open(call.log, "wb", buffering=0) as log:

            def write(_: bytes, data: bytes) -> None:
                log.write(data)

            return self._call(call, cancel, on_progress, write)

    def interact(self, call: DeviceCall) -> int:
        """See DeviceRunner. The tool's stdin is empty."""

        def write(kind: bytes, data: bytes) -> None:
            stream = sys.stdout.buffer if kind == b"O" else sys.stderr.buffer
            stream.write(data)
            stream.flush()

        return self._call(call, threading.Event(), lambda _: None, write).status

    def _call(
        self,
        call: DeviceCall,
        cancel: threading.Event,
        on_progress: Callable[[Progress], None],
        on_output: OnOutput,
    ) -> WorkerExit:
        while not self.board.acquire(timeout=_POLL_S):
            if cancel.is_set():
                return _CANCELLED
        try:
            with SshConnection(self._command(call.packages.python), cancel) as connection:
                ready = connection.greet(call)
                self._check(ready, call.packages.python)
                if not ready["packages"]:
                    connection.send_files(b"p", {".": call.packages.directory})
                connection.send_files(b"i", {"root": call.root, "tool": f"{call.base}/tool"})
                return connection.wait(call.root, on_progress, on_output)
        except ConnectionEnded as error:
            if cancel.is_set():
                return _CANCELLED
            raise self._failure(error) from None
        finally:
            self.board.release()

    def _command(self, python: str) -> list[str]:
        ssh = find_program("ssh")
        if ssh is None:
            raise EnvironmentFailure(
                f"`ssh`, which reaches `{self.address}`, is not on this machine",
                hint="apt-get install --no-install-recommends openssh-client",
            )
        host, port = self._host_and_port()
        options = [part for option in (*_OPTIONS, *self.options) for part in ("-o", option)]
        code = f"import sys;exec(compile(sys.stdin.buffer.read({len(agent())}),'agent','exec'))"
        find = f"command -v python{python} || command -v python3 || echo python3"
        script = f"PATH=$PATH:/usr/local/bin:/usr/bin:/bin; exec $({find}) -B -c {shlex.quote(code)}"
        # Whatever shell a person logs in with: it starts one that is known.
        return [ssh, *options, *(["-p", port] if port else []), "--", host, f"sh -c {shlex.quote(script)}"]

    def _host_and_port(self) -> tuple[str, str]:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdigit() or (":" in host and not host.endswith("]")):
            host, port = self.address, ""
        return host.replace("[", "").replace("]", ""), port

    def _check(self, ready: Mapping[str, Any], python: str) -> None:
        """Results are kept as those of this CPU and this Python."""
        machine = _MACHINES.get(ready["machine"], ready["machine"])
        if machine != self.cpu:
            raise EnvironmentFailure(
                f"the device `{self.address}` is {machine}, and its runner says {self.cpu}",
                hint="name the CPU that it has in its `device_runner` and its `platform`",
            )
        if ready["python"] != python:
            raise EnvironmentFailure(
                f"the device `{self.address}` has Python {ready['python']}, and {python} is needed",
                hint=f"install python{python} there, or make the toolchain's lock for {ready['python']}",
            )

    def _failure(self, error: ConnectionEnded) -> EnvironmentFailure:
        notes = error.said[-_NOTES:]
        if error.code in _NO_PROGRAM:
            return EnvironmentFailure(
                f"the device `{self.address}` has no Python", notes=notes, hint="install python3 there"
            )
        if error.code == _SSH_FAILED:
            text = "\n".join(error.said).lower()
            cause = next((why for sign, why in _CAUSES if sign in text), "cannot be reached, or went away")
            return EnvironmentFailure(
                f"the device `{self.address}` {cause}",
                notes=notes,
                hint=f"`ssh {self.address} true` must work without asking for anything",
            )
        return EnvironmentFailure(
            f"the device `{self.address}` did not finish its call",
            notes=notes,
            hint="is its disk full, or its memory?",
        )
