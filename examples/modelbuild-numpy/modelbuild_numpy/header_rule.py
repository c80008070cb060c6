"""The rule `c_header`: weights for a microcontroller's flash."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from modelbuild.api import (
    Budget,
    Context,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    DeviceRunInfo,
    Footprint,
    Lock,
    PlatformInfo,
    Provider,
    PythonTool,
    Rule,
    over_budget,
)

_HERE = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class CHeader(Rule):
    """The arrays of a NumPy binary as a C header: constants, which a linker puts into flash.

    Weights are `float`, or of `npz:int8` `int8_t` codes with `float` scales. The network itself is for the
    firmware to compute. With `board`, arrays that do not fit its flash are refused before anything is trained.

        load("@modelbuild_numpy//:header_rule.py", "c_header")

        c_header(
            name = "digits_h",
            binary = ":digits-int8",
            board = "@modelbuild_numpy//platforms:pico_2",
        )
    """

    binary: Dep[DeviceBinaryInfo]
    """A `device_binary` that the NumPy toolchain made."""
    board: Dep[PlatformInfo] | None = None
    """Where the weights are to go; its `disk` is the flash they may take."""
    prefix: str = "model"
    """What C names start with."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """One action."""
        made = self.binary.get(DeviceRunInfo)
        if self.binary.info.runtime != "numpy" or made is None:
            ctx.fail(f"`{self.binary.label}` is for {self.binary.info.runtime}, not a binary for numpy")
        if not _NAME.match(self.prefix):
            ctx.fail(f"`{self.prefix}` cannot start a name in C")
        if self.board:
            numbers = made.toolchain.footprint(made.model, self.binary.info.format, made.platform).weights
            budget = Budget(disk=self.board.info.budget.disk)
            for problem in over_budget(Footprint(disk=numbers, weights=0), budget):
                ctx.fail(f"the weights do not fit `{self.board.label}`: {problem.removeprefix('disk: ')}")
        header = ctx.declare_file(f"{self.prefix}.h")
        ctx.run(
            tool=PythonTool(_HERE / "header_tool.py", lock=Lock(_HERE / "runtime.lock")),
            mnemonic="CHeader",
            inputs={"archive": self.binary.info.binary},
            outputs={"header": header},
            params={"prefix": self.prefix},
        )
        return [DefaultInfo((header,))]
