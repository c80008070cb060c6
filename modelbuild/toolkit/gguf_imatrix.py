"""Importance matrices in llama.cpp's GGUF format. Needs gguf and numpy.

For each matrix `blk.0.attn_q.weight` the file holds `.in_sum2`, the sum of the squares of its inputs by
column, [1, columns], and `.counts`, over how many tokens, [1, 1]; both F32. `llama-quantize` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from modelbuild.toolkit.request import ToolError


@dataclass(frozen=True)
class Imatrix:
    """sums: GGUF name of a matrix -> sum of squares of its inputs, float32 [columns].

    tokens: how many inputs each sum is over. chunks: how many texts they came from.
    """

    sums: Mapping[str, npt.NDArray[np.float32]]
    tokens: int
    chunks: int

    def importance(self, name: str) -> npt.NDArray[np.float32] | None:
        """Mean square of each input column; None where nothing is known of `name`."""
        sums = self.sums.get(name)
        return None if sums is None else sums / np.float32(self.tokens)


def write_imatrix(path: Path, matrix: Imatrix, dataset: str) -> None:
    """Write the file; the order is that of names. dataset: what the texts are, as `split` of a dataset."""
    writer = _Writer(path, "")
    writer.add_type(gguf.GGUFType.IMATRIX)
    writer.add_array(gguf.Keys.IMatrix.DATASETS, [dataset])
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, matrix.chunks)
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, -(-matrix.tokens // matrix.chunks))
    counts = np.array([[matrix.tokens]], np.float32)
    for name, sums in sorted(matrix.sums.items()):
        writer.add_tensor(f"{name}.in_sum2", sums.astype(np.float32).reshape(1, -1))
        writer.add_tensor(f"{name}.counts", counts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_imatrix(path: Path) -> Imatrix:
    """Read the file. Raises ToolError when it is no importance matrix, or one without data."""
    try:
        reader = gguf.GGUFReader(path)
    except ValueError as error:
        raise ToolError(f"`{path.name}` is not a GGUF file: {error}") from error
    kind = reader.get_field(gguf.Keys.General.TYPE)
    if kind is None or kind.contents() != gguf.GGUFType.IMATRIX:
        raise ToolError(f"`{path.name}` is not an importance matrix")
    tensors = {str(tensor.name): tensor.data for tensor in reader.tensors}
    sums: dict[str, npt.NDArray[np.float32]] = {}
    tokens = set()
    for key, data in tensors.items():
        if key.endswith(".in_sum2"):
            name = key.removesuffix(".in_sum2")
            sums[name] = np.array(data, np.float32).reshape(-1)
            tokens.add(int(tensors[f"{name}.counts"].item()))
    if len(tokens) != 1 or 0 in tokens:
        raise ToolError(f"`{path.name}` does not hold one number of tokens for all matrices")
    chunks = reader.get_field(gguf.Keys.IMatrix.CHUNK_COUNT)
    return Imatrix(sums, tokens.pop(), int(chunks.contents()) if chunks else 0)


class _Writer(gguf.GGUFWriter):  # type: ignore[misc] # gguf is untyped
    """An importance matrix names no architecture."""

    def add_architecture(self) -> None:
        """Nothing."""
