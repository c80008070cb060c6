"""Weights that stay integers while activations stay floats: MatMulNBits and GatherBlockQuantized.

Both are ONNX Runtime's. They take 2, 4 and 8 bits and blocks of a power of two, from 16 on, so most packed
weights fit as they are: the codes are copied, a scale that a longer group shares is repeated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from graph import MICROSOFT, DenseGraph, Use
from onnx import helper

from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import ToolError

_BLOCKS = (256, 128, 64, 32, 16)
_ROUNDING_BLOCK = 32
Bytes = npt.NDArray[np.uint8]


def block_of(columns: int, group: int) -> int:
    """Weights of a block, for rows of `columns` weights of which `group` share a scale; 0 when there is none.

    A group that is the whole row may end in a block that is not full.
    """
    for block in _BLOCKS:
        if group % block == 0:
            return block
    return _ROUNDING_BLOCK if group == columns else 0


def replace(graph: DenseGraph, use: Use, weight: PackedWeight) -> None:
    """Let an operator on integers do what `use` did. Raises ToolError for groups not made of blocks."""
    columns = weight.codes.shape[1]
    group = -(-columns // weight.scales.shape[1])
    block = block_of(columns, group)
    if not block:
        raise ToolError(f"`{use.name}` has groups of {group} weights, which are not made of blocks of 16")
    bits = {2: 2, 3: 4, 4: 4, 8: 8}[weight.bits]
    place = _gather if use.gather else _matmul
    graph.replace(use, place(graph, use, weight, bits, block))


def pack(codes: npt.NDArray[np.int8], bits: int) -> Bytes:
    """Signed codes [rows, columns] -> bytes [rows, ceil(columns * bits / 8)], the first code lowest."""
    unsigned = (codes.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    each = 8 // bits
    unsigned = np.pad(unsigned, ((0, 0), (0, -unsigned.shape[1] % each)))
    parts = unsigned.reshape(len(codes), -1, each)
    shifts = (np.arange(each, dtype=np.uint8) * np.uint8(bits)).astype(np.uint8)
    packed: Bytes = np.bitwise_or.reduce(parts << shifts, axis=2).astype(np.uint8)
    return packed


def _scales(weight: PackedWeight, block: int, name: str, bits: int, graph: DenseGraph) -> list[str]:
    """The names of scales [rows, blocks] and, for asymmetric weights, of packed zero points."""
    blocks = -(-weight.codes.shape[1] // block)

    def spread(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(values, -(-blocks // values.shape[1]), axis=1)

    names = [graph.add(f"{name}.scales", spread(weight.scales).astype(np.float32))]
    if weight.zeros is not None:
        names.append(graph.add(f"{name}.zeros", pack(spread(weight.zeros), bits)))
    return names


def _matmul(graph: DenseGraph, use: Use, weight: PackedWeight, bits: int, block: int) -> list[Any]:
    rows, columns = weight.codes.shape
    blocks = -(-columns // block)
    pad, shape = blocks * block - columns, (rows, blocks, block * bits // 8)
    nodes = []
    if use.shared and not pad:
        table = graph.add(f"{use.name}.rows", pack(weight.codes, bits))
        matrix, sizes = f"{use.name}.matrix", graph.add(f"{use.name}.shape", np.array(shape, np.int64))
        nodes.append(helper.make_node("Reshape", [table, sizes], [matrix]))
    else:
        codes = np.pad(weight.codes, ((0, 0), (0, pad)))
        matrix = graph.add(f"{use.name}.matrix", pack(codes, bits).reshape(shape))
    inputs = [use.data, matrix, *_scales(weight, block, use.name, bits, graph)]
    sizes_of = {"K": columns, "N": rows, "bits": bits, "block_size": block}
    nodes.append(helper.make_node("MatMulNBits", inputs, [use.output], domain=MICROSOFT, **sizes_of))
    return nodes


def _gather(graph: DenseGraph, use: Use, weight: PackedWeight, bits: int, block: int) -> list[Any]:
    table = graph.add(f"{use.name}.rows", pack(weight.codes, bits))
    inputs = [table, use.data, *_scales(weight, block, use.name, bits, graph)]
    how = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    return [helper.make_node("GatherBlockQuantized", inputs, [use.output], domain=MICROSOFT, **how)]
