"""Writes the arrays of an archive as a C header."""

from __future__ import annotations

import re
from collections.abc import Iterator

from archive import Array, read_archive
from layout import EPSILON, HEADS

from modelbuild.toolkit.request import Request

_TYPES = {"float32": "float", "int8": "int8_t"}
_A_LINE = 12


def main(request: Request) -> None:
    """Inputs: archive. Outputs: header. Params: prefix."""
    prefix = request.params["prefix"]
    arrays = read_archive(request.inputs["archive"])
    request.outputs["header"].write_text("\n".join(_lines(prefix, arrays)) + "\n")


def _lines(prefix: str, arrays: dict[str, Array]) -> Iterator[str]:
    guard = f"{prefix.upper()}_H"
    yield f"#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n"
    yield f"#define {prefix.upper()}_HEADS {int(arrays[HEADS])}"
    yield f"#define {prefix.upper()}_EPSILON {float(arrays[EPSILON])!r}f\n"
    for name, array in arrays.items():
        if name in (HEADS, EPSILON):
            continue
        yield f"/* {name}: {' x '.join(str(size) for size in array.shape)} */"
        yield f"static const {_TYPES[array.dtype.name]} {c_name(prefix, name)}[{array.size}] = {{"
        numbers = [_number(each) for each in array.ravel().tolist()]
        for start in range(0, len(numbers), _A_LINE):
            yield f"    {', '.join(numbers[start : start + _A_LINE])},"
        yield "};\n"
    yield f"#endif /* {guard} */"


def c_name(prefix: str, name: str) -> str:
    """`vit.layers.0.mlp.fc1.weight` -> `model_vit_layers_0_mlp_fc1_weight`."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9]', '_', name)}"


def _number(value: float) -> str:
    """Nine digits tell every float apart."""
    return str(value) if isinstance(value, int) else f"{value:.8e}f"
