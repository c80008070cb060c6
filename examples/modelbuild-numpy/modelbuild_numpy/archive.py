"""Archives: arrays by name, as `numpy.load` reads them. Equal arrays give equal bytes."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from layout import NPY_HEADER, member

from modelbuild.toolkit.request import ToolError

Array = npt.NDArray[Any]

_MAGIC = b"\x93NUMPY\x01\x00"


def write_archive(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays, little-endian, in this order. `numpy.savez` pads headers as its version likes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            little = array.astype(array.dtype.newbyteorder("<"))
            archive.writestr(zipfile.ZipInfo(member(name)), _header(little) + little.tobytes())


def read_archive(path: Path) -> dict[str, Array]:
    """Every array. Raises ToolError for a file that is no archive."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ToolError(f"`{path.name}` is no archive of arrays: {error}") from error


def _header(array: Array) -> bytes:
    """https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0."""
    facts = f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': {array.shape!r}, }}"
    room = NPY_HEADER - len(_MAGIC) - 2
    assert len(facts) < room, facts
    return _MAGIC + struct.pack("<H", room) + facts.ljust(room - 1).encode() + b"\n"
