"""Files of safetensors, read and written piece by piece: no model has to fit into memory. Standard library.

A file is the length of its header (8 bytes, little-endian), the header in JSON, and the bytes of the tensors
one after the other. What is written here is what the library writes of the same tensors, byte for byte: by
type and then in the order of their names, the header filled up with spaces to a multiple of eight.
Reference: the format's description in the repository of safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import ToolError

SIZES: Mapping[str, int] = {
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "F32": 4,
    "U32": 4,
    "I32": 4,
    "BF16": 2,
    "F16": 2,
    "U16": 2,
    "I16": 2,
    "F8_E8M0": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Type -> bytes of a number, in the order of a file. Others are smaller than a byte, or unknown here."""
_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000
"""What the library accepts."""
_PIECE = 1 << 24


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a file. begin: where its bytes start in the file, of which there are `size`."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    def pieces(self, unit: int = 1) -> Iterator[bytes]:
        """Its bytes, in pieces of whole units."""
        with self.file.open("rb") as stream:
            stream.seek(self.begin)
            left = self.size
            while left:
                piece = stream.read(min(left, _PIECE // unit * unit))
                if not piece:
                    raise ToolError(f"`{self.file.name}` ends inside of `{self.name}`")
                left -= len(piece)
                yield piece


def read_entries(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file by name. Raises ToolError for a file that is cut short, or of another kind."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > _MOST_HEADER_BYTES:
            raise ToolError(f"`{path.name}` is not a safetensors file", _pointer(path))
        text = stream.read(length)
    if len(text) < length:
        raise ToolError(f"`{path.name}` ends inside of its header: it was cut short", "fetch it again")
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = [_entry(path, name, fields, _LENGTH_BYTES + length) for name, fields in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ToolError(f"`{path.name}` is not a safetensors file: its header is {error}") from error
    end = _LENGTH_BYTES + length
    for entry in sorted(entries, key=lambda each: (each.begin, each.size)):
        if entry.begin != end:
            raise ToolError(f"the tensors of `{path.name}` overlap, or have gaps, at `{entry.name}`")
        end += entry.size
    if end != size:
        raise ToolError(
            f"`{path.name}` is {size} bytes long, and its header speaks of {end}: it was cut short",
            "fetch it again",
        )
    return {entry.name: entry for entry in entries}


def write_file(
    path: Path, tensors: Sequence[tuple[str, tuple[int, ...], Iterable[bytes]]], dtype: str
) -> None:
    """Write tensors of one type: the name, the shape and the bytes of each, in pieces.

    Raises ToolError when a tensor has more or fewer bytes than its shape says.
    """
    with path.open("wb") as stream:
        stream.write(header_bytes((name, dtype, shape) for name, shape, _ in tensors))
        for name, shape, pieces in sorted(tensors, key=lambda tensor: tensor[0]):
            written = sum(stream.write(piece) for piece in pieces)
            if written != prod(shape) * SIZES[dtype]:
                raise ToolError(f"`{name}` has {written} bytes, which is not {list(shape)} of {dtype}")


def header_bytes(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """What a file begins with: the length of the header and the header. tensors: name, type and shape."""
    order = list(SIZES)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in sorted(tensors, key=lambda tensor: (order.index(tensor[1]), tensor[0])):
        begin, end = end, end + prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _entry(path: Path, name: str, fields: Mapping[str, Any], start: int) -> TensorEntry:
    dtype, shape = str(fields["dtype"]), tuple(int(size) for size in fields["shape"])
    begin, end = (int(offset) for offset in fields["data_offsets"])
    if dtype in SIZES and end - begin != prod(shape) * SIZES[dtype]:
        raise ValueError(f"wrong about the bytes of `{name}`")
    return TensorEntry(path, name, dtype, shape, start + begin, end - begin)


def _pointer(path: Path) -> str | None:
    """Git LFS leaves a few lines of text where it was told not to fetch a file."""
    with path.open("rb") as stream:
        lfs = stream.read(64).startswith(b"version https://git-lfs")
    return "it is a pointer of Git LFS: run `git lfs pull`" if lfs else None
