"""A real sshd on loopback, with keys and a configuration of its own."""

from __future__ import annotations

import getpass
import os
import pwd
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SSHD = "/usr/sbin/sshd"


@dataclass
class Sshd:
    """A server that is running. options: what ssh needs to know of it, as `-o` takes it."""

    root: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """As a runner names it."""
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def options(self) -> tuple[str, ...]:
        """Nothing of the person who runs the tests."""
        return (
            f"IdentityFile={self.root}/key",
            "IdentitiesOnly=yes",
            f"UserKnownHostsFile={self.root}/known_hosts",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
        )

    def stop(self) -> None:
        """End the server; connections that are open go on."""
        self.process.terminate()
        self.process.wait()


def start_sshd(root: Path) -> Sshd:
    """Start one, whose users have `root/home` as their home, so that nothing is left in the real one."""
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)], check=True)
    (root / "authorized_keys").write_bytes((root / "key.pub").read_bytes())
    (root / "home").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host_key = " ".join((root / "host.pub").read_text().split()[:2])
    (root / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (root / "config").write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {root}/host
AuthorizedKeysFile {root}/authorized_keys
PidFile {root}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv HOME={root}/home
"""
    )
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # Where sshd, as root, wants to shut its children in.
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(root / "config")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    server = Sshd(root, port, process)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, (root / "log").read_text()
            time.sleep(0.02)
        else:
            return server


def login_shell_exists() -> bool:
    """sshd starts the login shell of a user, which has to be there."""
    return os.access(pwd.getpwuid(os.geteuid()).pw_shell, os.X_OK)
