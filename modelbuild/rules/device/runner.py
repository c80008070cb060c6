"""The rule `device_runner`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from modelbuild.api import Context, DefaultInfo, Provider, Rule, Runner, RunnerInfo

SYSROOTS = Path(__file__).parent / "sysroots"
"""`<name>.sysroot` of each name that `sysroot` knows."""

_NAMES = ("aarch64", "armv7", "cortex-a76", "riscv64")
_ADDRESS = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?(\[[0-9A-Fa-f:.]+(%\w+)?\]|[A-Za-z0-9][A-Za-z0-9.-]*)(:\d+)?\Z"
)


class DeviceRunner(Rule):
    """How the programs of a platform are run on the machine that builds; `runner` of a `platform` names it.

    `local`: the machine that builds is such a device. `qemu-user`: another CPU's Linux programs are emulated,
    in a file system of Debian packages. `ssh`: they are sent to the device at `address`, which needs Linux,
    tar, and the Python that the wheels of its runtime are for.

        device_runner(
            name = "qemu_aarch64",
            cpu = "aarch64",
            kind = "qemu-user",
        )

    A file system of one's own is a rule that returns RunnerInfo; see the guide to devices.
    """

    kind: Literal["local", "qemu-user", "ssh"]
    """Where programs run."""
    cpu: str = Field(pattern=r"^[a-z0-9_]+$")
    """The device's, as in `@platforms//cpu`. In the key of what runs there."""
    sysroot: str = ""
    """For `qemu-user`, the device: `aarch64`, `armv7`, `cortex-a76`, `riscv64`; by default the CPU's name."""
    address: str = ""
    """For `ssh`: `user@host`, with `:port` if it is not 22. In no key: equal devices answer alike."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Only a description; nothing is fetched or started."""
        if (self.kind == "ssh") != bool(self.address):
            ctx.fail("`address` and the kind `ssh` belong together")
        if self.address and not _ADDRESS.match(self.address):
            ctx.fail(f"`{self.address}` is no address", hint="write `user@host` or `user@host:2222`")
        if self.sysroot and self.kind != "qemu-user":
            ctx.fail(f"`sysroot` means nothing for the kind `{self.kind}`")
        name = self.sysroot or self.cpu
        if self.kind == "qemu-user" and name not in _NAMES:
            ctx.fail(f"there is no sysroot `{name}`", hint=f"there are {', '.join(_NAMES)}")
        sysroot = SYSROOTS / f"{name}.sysroot" if self.kind == "qemu-user" else None
        return [DefaultInfo(), RunnerInfo(Runner(self.kind, self.cpu, sysroot, self.address))]
