"""Which integers take the place of which matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from graph import Use, check_same
from weight_only import block_of

from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.rounding import round_groups, round_rows


def place(
    uses: list[Use], packed: Mapping[str, PackedWeight], variant: str
) -> list[tuple[Use, PackedWeight]]:
    """Each use with its integers: the checkpoint's, or, when that has none at all, rounded ones.

    What a packed checkpoint keeps in floating point stays so, but for an embedding that holds the very
    numbers of a packed output matrix; the export stores such a pair once.
    """
    found = []
    for use in uses:
        if not packed:
            found.append((use, rounded(use, variant)))
        elif use.name in packed:
            check_same(use, packed[use.name])
            found.append((use, packed[use.name]))
        else:
            found += [(replace(use, name=name), packed[name]) for name in _equal(use, packed)[:1]]
    missing = sorted(set(packed) - {use.name for use, _ in found})
    if missing:
        raise ToolError(f"the packed weight `{missing[0]}` has no place in the ONNX graph")
    return mark_shared(found)


def mark_shared(found: list[tuple[Use, PackedWeight]]) -> list[tuple[Use, PackedWeight]]:
    """Say which matrices are both looked up and multiplied by."""
    looked_up, multiplied = ({use.name for use, _ in found if use.gather is kind} for kind in (True, False))
    shared = looked_up & multiplied
    return [(replace(use, shared=use.name in shared), weight) for use, weight in found]


def _equal(use: Use, packed: Mapping[str, PackedWeight]) -> list[str]:
    """The packed weights that are the matrix of `use` under another name."""
    alike = ((name, weight) for name, weight in packed.items() if weight.codes.shape == use.matrix.shape)
    return [name for name, weight in alike if np.array_equal(weight.dequantized(), use.matrix)]


def rounded(use: Use, variant: str) -> PackedWeight:
    """The matrix of `use` in the integers of a format, rounded to the nearest."""
    columns = use.matrix.shape[1]
    if variant == "int4":
        return round_groups(use.matrix, 4, next((n for n in (32, 16) if columns % n == 0), columns))
    if variant == "int8":
        return round_groups(use.matrix, 8, block_of(columns, columns) if columns % 16 == 0 else columns)
    return round_rows(use.matrix)
