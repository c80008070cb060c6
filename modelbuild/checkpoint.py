"""Checkpoints: the bytes of a model tree's safetensors files, told before they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from modelbuild.architecture import WeightTensor, complete_architecture, weight_tensors
from modelbuild.provider import ModelInfo
from modelbuild.toolkit.safetensors_file import SIZES, header_bytes

_STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a safetensors file holds it. dtype: its name there, `F32`."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * SIZES[self.dtype]


def stored_tensors(model: ModelInfo) -> tuple[tuple[StoredTensor, ...], ...]:
    """What each safetensors file of the tree holds: `model.safetensors`, and `embeddings.safetensors` if any.

    Quantized models are stored as the rule `quantize` does: packed codes and float32 scales, or of format
    `gptq` as AutoGPTQ does; a rounded embedding as floats, its codes beside it. Raises AnalysisError for an
    unknown architecture.
    """
    tensors = weight_tensors(model.architecture)
    if not model.quantization:
        dtype = _STORED[model.dtype]
        return (tuple(StoredTensor(t.name, dtype, t.shape) for t in tensors),)
    if model.format == "gptq":
        return _gptq(model, tensors)
    keys = complete_architecture(model.architecture)
    floats = _STORED[model.quantization.get("floats", "float32")]
    is_text = "vocab_size" in keys
    rounded = is_text and model.quantization.get("embeddings", "rtn") == "rtn"
    stored: list[StoredTensor] = []
    aside: list[StoredTensor] = []
    for tensor in tensors:
        if tensor.role == "matrix" or (tensor.role == "output" and (rounded or not is_text)):
            stored += _packed(tensor, model)
        else:
            written = rounded and tensor.role == "embedding"  # Its values on the grid.
            stored.append(StoredTensor(tensor.name, "F32" if written else floats, tensor.shape))
        if rounded and tensor.role == "embedding":
            if keys["tie_word_embeddings"]:
                stored += _packed(WeightTensor("lm_head.weight", tensor.shape, "output"), model)
            else:
                aside += _packed(tensor, model)
    return (tuple(stored), tuple(aside)) if aside else (tuple(stored),)


def is_rounded(model: ModelInfo, tensor: WeightTensor) -> bool:
    """Whether a format of integers holds this tensor as such.

    Of a quantized model, what the checkpoint has as integers; of one in floating point every matrix, and the
    table of tokens, but not the kernel of a picture's patches.
    """
    if tensor.role == "vector" or len(tensor.shape) != 2:
        return False
    if tensor.role == "matrix" or not model.is_text or not model.quantization:
        return True
    return bool(model.quantization.get("embeddings", "rtn") == "rtn")


def row_integers_refusal(model: ModelInfo) -> str:
    """Why matrices cannot be 8-bit integers with one scale a row without a second rounding; empty: they can.

    This is what modelbuild.toolkit.int8_matrices takes.
    """
    stored = model.quantization
    if not stored:
        return ""
    if stored["bits"] != 8:
        return f"8 bits would round its {stored['bits']}-bit weights a second time"
    if stored["group_size"] or not stored.get("symmetric", True):
        return "8-bit weights are symmetric there with one scale a row, and the model's are not"
    return ""


def checkpoint_bytes(model: ModelInfo) -> int:
    """Bytes of the safetensors files, headers included."""
    return sum(
        len(header_bytes((t.name, t.dtype, t.shape) for t in file)) + sum(t.size for t in file)
        for file in stored_tensors(model)
    )


def _packed(tensor: WeightTensor, model: ModelInfo) -> Iterator[StoredTensor]:
    rows, columns = tensor.shape
    bits = int(model.quantization["bits"])
    groups = columns // (int(model.quantization["group_size"]) or columns)
    yield StoredTensor(f"{tensor.name}_packed", "I32", (rows, -(-columns * bits // 32)))
    yield StoredTensor(f"{tensor.name}_scale", "F32", (rows, groups))
    yield StoredTensor(f"{tensor.name}_shape", "I64", (2,))
    if not model.quantization.get("symmetric", True):
        yield StoredTensor(f"{tensor.name}_zero_point", "I32", (-(-rows * bits // 32), groups))


def _gptq(model: ModelInfo, tensors: Sequence[WeightTensor]) -> tuple[tuple[StoredTensor, ...], ...]:
    """Layers in AutoGPTQ's format, all else as floats, and the codes of rounded embeddings beside them."""
    floats = _STORED[model.quantization.get("floats", "float32")]
    bits = int(model.quantization["bits"])
    stored: list[StoredTensor] = []
    aside: list[StoredTensor] = []
    for tensor in tensors:
        if tensor.role != "matrix":
            rounded = is_rounded(model, tensor)  # Its values on the grid.
            stored.append(StoredTensor(tensor.name, "F32" if rounded else floats, tensor.shape))
            aside += _packed(tensor, model) if rounded else ()
            continue
        name, (rows, columns) = tensor.name.removesuffix(".weight"), tensor.shape
        groups = columns // (int(model.quantization["group_size"]) or columns)
        stored += [
            StoredTensor(f"{name}.qweight", "I32", (columns * bits // 32, rows)),
            StoredTensor(f"{name}.qzeros", "I32", (groups, rows * bits // 32)),
            StoredTensor(f"{name}.scales", "F16", (groups, rows)),
            StoredTensor(f"{name}.g_idx", "I32", (columns,)),
        ]
    return (tuple(stored), tuple(aside)) if aside else (tuple(stored),)
