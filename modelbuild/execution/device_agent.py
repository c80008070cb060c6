"""What runs on a device that is reached by ssh: takes a call, makes it, and sends back what came of it.

It is sent as text over the connection, so that nothing has to be installed there: standard library only, and
no syntax that Python 3.7 lacks. Both sides send frames: a byte that says what it is, four of length, content.

    to the device     H header   p packages (a tar archive, in pieces)   i what the call needs   . its end
    from the device   R ready    P progress   O stdout   E stderr   X how it ended   o outputs   . their end

Before its first frame the device says MARK: whatever a person's login shell prints comes earlier.

When the connection ends, the call and all that it started are killed and its files are removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from typing import Any

MARK = b"\0modelbuild\0"
CHUNK = 1 << 16
_POLL_MS = 100
_STALE_S = 86400.0
_DRAIN_S = 1.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Gone(Exception):
    """The connection has ended."""


def send(kind: bytes, content: bytes = b"") -> None:
    """Send one frame."""
    try:
        sys.stdout.buffer.write(struct.pack(">cI", kind, len(content)) + content)
        sys.stdout.buffer.flush()
    except OSError:
        raise Gone from None


def receive() -> tuple[bytes, bytes]:
    """The next frame: its kind and content."""
    head = sys.stdin.buffer.read(5)
    kind, size = struct.unpack(">cI", head) if len(head) == 5 else (b"", 1)
    content = sys.stdin.buffer.read(size)
    if len(content) < size:
        raise Gone
    return kind, content


class Arriving:
    """An archive that arrives in frames, as a file that tarfile reads."""

    def __init__(self) -> None:
        self._pending = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        while len(self._pending) < size and not self._ended:
            kind, content = receive()
            self._ended = kind == b"."
            self._pending += content
        found, self._pending = self._pending[:size], self._pending[size:]
        return found

    def unpack(self, directory: str) -> None:
        """Write what is in it into `directory`."""
        with tarfile.open(fileobj=self, mode="r|") as archive:  # type: ignore[call-overload]
            archive.extractall(directory)  # noqa: S202 - from whoever may log in
        while self.read(CHUNK):
            pass


class Leaving:
    """An archive that is sent while tarfile writes it."""

    def write(self, data: bytes) -> int:
        """Send `data`."""
        send(b"o", data)
        return len(data)


def serve() -> None:
    """Take one call."""
    sys.stdout.buffer.write(MARK)
    header = json.loads(receive()[1].decode())
    home = os.path.join(os.path.expanduser("~"), ".cache", "modelbuild")
    runs, packages = os.path.join(home, "runs"), os.path.join(home, "packages")
    for folder in (runs, packages):
        os.makedirs(folder, exist_ok=True)
    _remove_stale(runs, packages)
    own = os.path.join(packages, header["packages"]) if header["packages"] else ""
    has_packages = not own or os.path.isdir(own)
    version = ".".join(str(part) for part in sys.version_info[:2])
    ready = {"machine": platform.machine(), "python": version, "packages": has_packages}
    send(b"R", json.dumps(ready).encode())
    if not has_packages:
        _keep_packages(packages, own)
    base = tempfile.mkdtemp(dir=runs)
    try:
        Arriving().unpack(base)
        os.mkdir(os.path.join(base, "tmp"))
        root = os.path.join(base, "root")
        given = _files(root)
        _call(header, base, own)
        with tarfile.open(fileobj=Leaving(), mode="w|") as archive:  # type: ignore[call-overload]
            for name in sorted(_files(root) - given):
                archive.add(os.path.join(root, name), arcname=name, recursive=False)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    send(b".")


def _keep_packages(packages: str, own: str) -> None:
    """Unpack beside its place, then rename: a directory of packages is whole or not there."""
    arriving = tempfile.mkdtemp(dir=packages, prefix="arriving-")
    try:
        Arriving().unpack(arriving)
        try:
            os.rename(arriving, own)
        except OSError:
            if not os.path.isdir(own):  # Another build was quicker.
                raise
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def _call(header: dict[str, Any], base: str, own: str) -> None:
    """Start the call, hand on what it says, and send how it ended."""
    pipes = {kind: os.pipe() for kind in (b"P", b"O", b"E")}
    progress = pipes[b"P"][1]
    environment = dict(header["environment"])
    home = os.path.join(base, "tmp")
    environment.update(HOME=home, TMPDIR=home, PYTHONPATH=own, MODELBUILD_PROGRESS_FD=str(progress))
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # What leaves its session and its parent becomes a child of ours.
    entry, tool, request = header["script"]
    os.set_blocking(progress, False)
    started = time.time()
    child = subprocess.Popen(
        [sys.executable, *header["flags"], base + "/" + entry, base + "/" + tool, request],
        cwd=base + "/root",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=pipes[b"O"][1],
        stderr=pipes[b"E"][1],
        pass_fds=(progress,),
        start_new_session=True,
        preexec_fn=_die_with_agent,  # noqa: PLW1509 - there are no threads here
    )
    for _, write in pipes.values():
        os.close(write)
    try:
        status, usage = _pump({read: kind for kind, (read, _) in pipes.items()}, child.pid)
    finally:
        _kill(child.pid)
        _kill_children()
    exit_ = {
        "status": -(status & 0x7F) if status & 0x7F else status >> 8,
        "peak_rss_bytes": usage.ru_maxrss * 1024,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.time() - started,
    }
    send(b"X", json.dumps(exit_).encode())


def _pump(kinds: dict[int, bytes], pid: int) -> tuple[int, Any]:
    """Hand on what comes out of the pipes until the call has ended; its status and resource usage."""
    poller = select.poll()
    for descriptor in (0, *kinds):
        poller.register(descriptor, select.POLLIN)
    ended = None
    until = float("inf")
    while (kinds or ended is None) and time.time() < until:
        for descriptor, _ in poller.poll(_POLL_MS):
            data = os.read(descriptor, CHUNK)
            if descriptor == 0 and not data:
                raise Gone
            if data:
                send(kinds[descriptor], data)
            else:
                poller.unregister(descriptor)
                del kinds[descriptor]
        if ended is None:
            found, status, usage = os.wait4(pid, os.WNOHANG)
            if found:
                ended = (status, usage)
                _kill(pid)  # What it left behind may hold the pipes.
                _kill_children()
                until = time.time() + _DRAIN_S
    assert ended is not None
    return ended


def _die_with_agent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _kill_children() -> None:
    """End what is still there of the call; the children of one that is killed become ours, in turn."""
    while True:
        found = [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == os.getpid()
        ]
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if not found:
            return


def _parent(pid: int) -> int:
    try:
        with open("/proc/%d/stat" % pid, "rb") as stream:  # noqa: UP031 - as short as it gets in Python 3.7
            return int(stream.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0  # It has ended.


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _files(root: str) -> set[str]:
    found: set[str] = set()
    for folder, _, names in os.walk(root):
        found.update(os.path.relpath(os.path.join(folder, name), root) for name in names)
    return found


def _remove_stale(*folders: str) -> None:
    """What was left by an agent that was killed; packages that are whole have 64 hex digits for a name."""
    names: list[str] = []
    for folder in folders:
        names += [os.path.join(folder, name) for name in os.listdir(folder) if len(name) != 64]
    for path in names:
        with contextlib.suppress(OSError):
            if time.time() - os.path.getmtime(path) > _STALE_S:
                shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    try:
        serve()
    except Gone:
        sys.exit(1)
    except OSError as error:
        sys.exit(str(error))
