"""The rounding of llama.cpp's own library, K-quants included. Needs libggml-python, gguf and numpy.

The library is the one inside the wheel `libggml-python`, called with ctypes: no compiler, no llama.cpp.
It rounds each row on its own, in plain C without a choice by CPU model, so that the bytes are the same on
every x86-64 machine and for every number of threads; on arm64 they are not, since sums are fused there.
Reference: include/ggml.h of ggml.
"""

from __future__ import annotations

import ctypes
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type

from modelbuild.toolkit.packed_weights import Array
from modelbuild.toolkit.request import ToolError

_ROWS_AT_ONCE = 256


def quantize_with_ggml(
    values: npt.NDArray[np.float32],
    type_: Type,
    importance: npt.NDArray[np.float32] | None = None,
    *,
    threads: int = 1,
) -> Array:
    """Round a matrix [rows, columns] to `type_`: uint8 [rows, bytes of a row].

    importance: [columns], how much an error in each column matters; None: all alike. Raises ToolError when
    the type cannot do without it, and when the library's result is not valid.
    """
    library = _library()
    rows, columns = values.shape
    block, size = gguf.GGML_QUANT_SIZES[type_]
    if columns % block:
        raise ToolError(f"rows of {columns} weights are not made of blocks of {block}")
    if importance is None and library.ggml_quantize_requires_imatrix(int(type_)):
        raise ToolError(f"{type_.name} needs an importance matrix", "name a calibration dataset")
    if importance is not None and importance.shape != (columns,):
        raise ToolError(f"an importance of shape {importance.shape} does not fit rows of {columns} weights")
    source = np.ascontiguousarray(values, dtype=np.float32)
    weights = None if importance is None else np.ascontiguousarray(importance, dtype=np.float32)
    out = np.empty((rows, columns // block * size), np.uint8)
    pointer = None if weights is None else weights.ctypes.data
    library.ggml_quantize_init(int(type_))  # Tables are made once, before threads need them.

    def quantize(first: int) -> None:
        count = min(_ROWS_AT_ONCE, rows - first)
        library.ggml_quantize_chunk(
            int(type_), source.ctypes.data, out.ctypes.data, first * columns, count, columns, pointer
        )

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(quantize, range(0, rows, _ROWS_AT_ONCE)))
    if not library.ggml_validate_row_data(int(type_), out.ctypes.data, out.nbytes):
        raise ToolError(f"rounding to {type_.name} gave scales that are not finite numbers")
    return out


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("libggml")
    if spec is None or not spec.submodule_search_locations:
        raise ToolError("`libggml-python` is not installed", "it is in the lock of //toolchains/gguf")
    library = ctypes.CDLL(str(Path(spec.submodule_search_locations[0]) / "lib64/libggml-base.so.0"))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    library.ggml_quantize_init.restype = None
    library.ggml_quantize_requires_imatrix.argtypes = [ctypes.c_int]
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_validate_row_data.argtypes = [ctypes.c_int, pointer, ctypes.c_size_t]
    library.ggml_validate_row_data.restype = ctypes.c_bool
    return library
