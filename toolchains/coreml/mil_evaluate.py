"""Computes an ML program with numpy: what it says, which is not what Apple's runtime makes of it.

Each result is rounded to the type that the program gives it; within an operation sums are float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mil_program import Array, Operation, Program

from modelbuild.toolkit.request import ToolError

Values = Mapping[str, Any]


def evaluate(program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs. Raises ToolError for an unknown operation, and a result of another shape than stated."""
    values: dict[str, Any] = {**program.constants, **inputs}
    for operation in program.operations:
        if operation.kind not in _OPERATIONS:
            raise ToolError(f"the program has an operation `{operation.kind}`, which cannot be checked here")
        found = _OPERATIONS[operation.kind](_arguments(operation, values))
        ((name, (dtype, shape)),) = operation.outputs.items()
        if found.shape != shape:
            raise ToolError(f"`{name}` of the program has the shape {found.shape}, and it says {shape}")
        with np.errstate(over="ignore"):
            values[name] = found.astype(dtype)
    return {name: values[name] for name in program.outputs}


def _arguments(operation: Operation, values: Mapping[str, Any]) -> Values:
    """Parameter -> value; floats in float32, and a list for `values`, which alone takes several."""
    found: dict[str, Any] = {}
    for parameter, names in operation.inputs.items():
        each = [_widened(values[name]) for name in names]
        found[parameter] = each if parameter == "values" else each[0]
    return found


def _widened(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return value


def _slice(v: Values) -> Array:
    x, rank = v["x"], v["x"].ndim
    flags = {name: v.get(name, np.zeros(rank, bool)) for name in ("begin_mask", "end_mask", "squeeze_mask")}
    stride = v.get("stride", np.ones(rank, int))
    parts: list[Any] = []
    for axis in range(rank):
        if flags["squeeze_mask"][axis]:
            parts.append(int(v["begin"][axis]))
            continue
        begin = None if flags["begin_mask"][axis] else int(v["begin"][axis])
        end = None if flags["end_mask"][axis] else int(v["end"][axis])
        parts.append(slice(begin, end, int(stride[axis])))
    return np.asarray(x[tuple(parts)])


def _matmul(v: Values) -> Array:
    x = v["x"].swapaxes(-1, -2) if v.get("transpose_x", False) else v["x"]
    y = v["y"].swapaxes(-1, -2) if v.get("transpose_y", False) else v["y"]
    return np.asarray(x @ y)


def _softmax(v: Values) -> Array:
    axis = int(v["axis"])
    raised = np.exp(v["x"] - v["x"].max(axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis, keepdims=True))


def _gelu(v: Values) -> Array:
    x, mode = v["x"], v.get("mode", "EXACT")
    if mode == "EXACT":
        halves = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))
    elif mode == "TANH_APPROXIMATION":
        halves = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        raise ToolError(f"the program approximates gelu by {mode}, which cannot be checked here")
    return np.asarray(x * 0.5 * (1 + halves))


def _layer_norm(v: Values) -> Array:
    axes = tuple(int(axis) for axis in v["axes"])
    centred = v["x"] - v["x"].mean(axes, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axes, keepdims=True) + v["epsilon"])
    return np.asarray(scaled * v["gamma"] + v["beta"])


def _conv(v: Values) -> Array:
    """Kernels that do not overlap, as those of a picture's patches."""
    x, weight = v["x"], v["weight"]
    outputs, channels, height, width = weight.shape
    plain = (
        v["pad_type"] == "valid" and int(v.get("groups", 1)) == 1 and (np.array(v["dilations"]) == 1).all()
    )
    if not plain or tuple(v["strides"]) != (height, width):
        raise ToolError("the program has a convolution that cannot be checked here")
    count, _, rows, columns = x.shape
    patches = x.reshape(count, channels, rows // height, height, columns // width, width)
    found = np.einsum("ncyixj,ocij->noyx", patches, weight)
    return np.asarray(found + v.get("bias", np.zeros(outputs))[:, None, None])


def _gather(v: Values) -> Array:
    if int(v.get("batch_dims", 0)):
        raise ToolError("the program gathers in batches, which cannot be checked here")
    return np.take(v["x"], v["indices"].astype(np.int64), int(v["axis"]))


def _repeated(v: Values) -> Array:
    return np.tile(v["x"], tuple(int(each) for each in v["reps"]))


_OPERATIONS: Mapping[str, Callable[[Values], Array]] = {
    "add": lambda v: np.asarray(v["x"] + v["y"]),
    "cast": lambda v: np.asarray(v["x"]),
    "concat": lambda v: np.concatenate(v["values"], int(v["axis"])),
    "conv": _conv,
    "expand_dims": lambda v: np.expand_dims(v["x"], tuple(int(axis) for axis in v["axes"])),
    "gather": _gather,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "linear": lambda v: np.asarray(v["x"] @ v["weight"].T + v["bias"]),
    "matmul": _matmul,
    "mul": lambda v: np.asarray(v["x"] * v["y"]),
    "pow": lambda v: np.asarray(v["x"] ** v["y"]),
    "reduce_mean": lambda v: v["x"].mean(tuple(int(a) for a in v["axes"]), keepdims=bool(v["keep_dims"])),
    "relu": lambda v: np.maximum(v["x"], 0),
    "reshape": lambda v: np.reshape(v["x"], tuple(int(each) for each in v["shape"])),
    "rsqrt": lambda v: np.asarray(1 / np.sqrt(v["x"] + v["epsilon"])),
    "sigmoid": lambda v: np.asarray(1 / (1 + np.exp(-v["x"]))),
    "silu": lambda v: np.asarray(v["x"] / (1 + np.exp(-v["x"]))),
    "slice_by_index": _slice,
    "softmax": _softmax,
    "sub": lambda v: np.asarray(v["x"] - v["y"]),
    "tanh": lambda v: np.tanh(v["x"]),
    "tile": _repeated,
    "transpose": lambda v: np.transpose(v["x"], tuple(int(each) for each in v["perm"])),
}
