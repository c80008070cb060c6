"""The rules `numpy_toolchain` and `c_header`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from modelbuild.api import (
    Context,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    DeviceRunInfo,
    Lock,
    PlatformInfo,
    Provider,
    PythonTool,
    Rule,
    byte_size,
)
from modelbuild_numpy.toolchain import FORMATS, NumpyToolchainInfo

_HERE = Path(__file__).parent
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class NumpyToolchain(Rule):
    """Plain NumPy as a runtime: archives of arrays that any device with Python and NumPy runs.

    `npz:fp32` holds float32. `npz:int8` holds matrices as int8 codes with float32 scales: one for each row,
    or, of a model that is quantized already, its codes and scales, which are never rounded again.

        load("@modelbuild_numpy//:rule.py", "numpy_toolchain")

        numpy_toolchain(name = "numpy")
    """

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Say what can be made; the actions are those of whoever converts a model."""
        return [DefaultInfo(), NumpyToolchainInfo("numpy", FORMATS)]


class CHeader(Rule):
    """The arrays of a NumPy binary as a C header: constants, which a linker puts into flash.

    Weights are `float`, or of `npz:int8` `int8_t` codes with `float` scales. The network itself is for the
    firmware to compute. With `board`, what does not fit its flash is refused before anything is trained.

        load("@modelbuild_numpy//:rule.py", "c_header")

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
        flash = self.board.info.budget.disk if self.board else None
        needed = made.toolchain.footprint(made.conversion).weights
        if flash is not None and needed > flash:
            ctx.fail(f"the weights take {byte_size(needed)}, and the board has {byte_size(flash)} of flash")
        header = ctx.declare_file(f"{self.prefix}.h")
        ctx.run(
            tool=PythonTool(_HERE / "header_tool.py", lock=Lock(_HERE / "runtime.lock")),
            mnemonic="CHeader",
            inputs={"archive": self.binary.info.binary},
            outputs={"header": header},
            params={"prefix": self.prefix},
        )
        return [DefaultInfo((header,))]
