"""The layers of a model as TVM gets them: weights stored by columns, integers kept packed. Imports torch.

A linear layer's weight [outputs, inputs] is stored as [inputs, outputs], so that the kernels in kernels.py
read it in order. Each layer is one operator here; kernels.py has the loops of each. What these operators
compute in torch is only used to check the layers against the model they replace.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import ToolError

NAMESPACE = "modelbuild_tvm"


@torch.library.custom_op(f"{NAMESPACE}::dense", mutates_args=())
def dense(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(rows, inputs) times (inputs, outputs)."""
    return x @ weight


@dense.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op(f"{NAMESPACE}::dense_packed", mutates_args=())
def dense_packed(
    x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int
) -> torch.Tensor:
    """The same with packed weights, see `pack_columns`. scales: float32 (groups, outputs). zeros: int8
    (groups, outputs), or (0, outputs) for a symmetric weight.
    """
    return x @ _unpack(codes, scales, zeros, bits, x.shape[1])


@dense_packed.register_fake
def _(x: torch.Tensor, codes: torch.Tensor, *_: object) -> torch.Tensor:
    return x.new_empty(x.shape[0], codes.shape[1])


@torch.library.custom_op(f"{NAMESPACE}::lookup", mutates_args=())
def lookup(ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Columns of (inputs, vocabulary) for int64 (rows), as (rows, inputs)."""
    return weight[:, ids].T.contiguous()


@lookup.register_fake
def _(ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight.new_empty(ids.shape[0], weight.shape[0])


@torch.library.custom_op(f"{NAMESPACE}::lookup_packed", mutates_args=())
def lookup_packed(
    ids: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    bits: int,
    width: int,
) -> torch.Tensor:
    """The same with packed weights. width: inputs."""
    return _unpack(codes, scales, zeros, bits, width)[:, ids].T.contiguous()


@lookup_packed.register_fake
def _(ids: torch.Tensor, _codes: torch.Tensor, scales: torch.Tensor, *numbers: object) -> torch.Tensor:
    return scales.new_empty(ids.shape[0], numbers[-1])


def pack_columns(weight: PackedWeight) -> torch.Tensor:
    """The codes as they are stored. 8 bits: int8 (inputs, outputs). 4 bits: uint8 (inputs / 2, outputs); a
    byte holds the code plus 8 of an even input in its lower half, that of the next one in its upper half.
    """
    columns = np.ascontiguousarray(weight.codes.T)
    if weight.bits == 8:
        return torch.from_numpy(columns)
    unsigned = (columns + 8).astype(np.uint8)
    if len(unsigned) % 2:
        unsigned = np.pad(unsigned, ((0, 1), (0, 0)))
    return torch.from_numpy(unsigned[0::2] | (unsigned[1::2] << 4))


def _unpack(
    codes: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, bits: int, width: int
) -> torch.Tensor:
    if bits == 4:
        codes = (
            torch.stack([codes & 15, codes >> 4], dim=1).reshape(-1, codes.shape[1])[:width].to(torch.int8)
            - 8
        )
    weight = codes.float()
    group = width // scales.shape[0]
    if zeros.shape[0]:
        weight = weight - zeros.float().repeat_interleave(group, 0)
    return weight * scales.repeat_interleave(group, 0)


class Weight(torch.nn.Module):
    """One stored weight, float or packed; two layers may share it."""

    def __init__(self, weight: torch.Tensor | PackedWeight) -> None:
        super().__init__()
        if isinstance(weight, torch.Tensor):
            self.bits = 0
            self.rows = weight.shape[1]
            self.register_buffer("values", weight.detach().T.contiguous())
            return
        self.bits = weight.bits
        self.rows = weight.codes.shape[1]
        zeros = np.zeros((0, len(weight.codes)), np.int8) if weight.zeros is None else weight.zeros.T
        self.register_buffer("codes", pack_columns(weight))
        self.register_buffer("scales", torch.from_numpy(np.ascontiguousarray(weight.scales.T)))
        self.register_buffer("zeros", torch.from_numpy(np.ascontiguousarray(zeros)))


class Linear(torch.nn.Module):
    """In place of torch.nn.Linear."""

    def __init__(self, weight: Weight, bias: torch.nn.Parameter | None) -> None:
        super().__init__()
        self.stored = weight
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """inputs: (..., inputs) to (..., outputs)."""
        stored = self.stored
        rows = inputs.reshape(-1, stored.rows)
        if stored.bits:
            found = dense_packed(rows, stored.codes, stored.scales, stored.zeros, stored.bits)  # type: ignore[arg-type]
        else:
            found = dense(rows, stored.values)  # type: ignore[arg-type]
        found = found if self.bias is None else found + self.bias
        return found.reshape(*inputs.shape[:-1], found.shape[-1])


class Embedding(torch.nn.Module):
    """In place of torch.nn.Embedding."""

    def __init__(self, weight: Weight) -> None:
        super().__init__()
        self.stored = weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids: int64 (...) to (..., width)."""
        stored, flat = self.stored, ids.reshape(-1)
        if stored.bits:
            found = lookup_packed(flat, stored.codes, stored.scales, stored.zeros, stored.bits, stored.rows)  # type: ignore[arg-type]
        else:
            found = lookup(flat, stored.values)  # type: ignore[arg-type]
        return found.reshape(*ids.shape, stored.rows)


class Patches(torch.nn.Module):
    """In place of a torch.nn.Conv2d whose kernels touch without overlap: a linear layer of each patch."""

    def __init__(self, layer: torch.nn.Conv2d) -> None:
        super().__init__()
        self.patch = layer.kernel_size
        self.linear = Linear(Weight(layer.weight.flatten(1)), layer.bias)

    @property
    def weight(self) -> torch.Tensor:
        """What transformers asks for the type that pixels should have."""
        values: torch.Tensor = self.linear.stored.values  # type: ignore[assignment] # a buffer
        return values

    @staticmethod
    def fits(layer: torch.nn.Conv2d) -> bool:
        """Whether this is what `layer` computes."""
        return (
            layer.stride == layer.kernel_size
            and layer.padding == (0, 0)
            and layer.dilation == (1, 1)
            and layer.groups == 1
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (1, channels, height, width) to (1, outputs, height / patch, width / patch)."""
        _, channels, height, width = pixels.shape
        down, across = height // self.patch[0], width // self.patch[1]
        cut = pixels[:, :, : down * self.patch[0], : across * self.patch[1]]
        cut = cut.reshape(channels, down, self.patch[0], across, self.patch[1]).permute(1, 3, 0, 2, 4)
        found = self.linear(cut.reshape(down * across, -1))
        return found.T.reshape(1, -1, down, across)


def replace_layers(model: torch.nn.Module, packed: Mapping[str, PackedWeight]) -> None:
    """Put these layers in place of every linear layer, token embedding and cut into patches, in place.

    packed: name of a weight -> what is stored of it. An embedding whose values are those of the output matrix
    shares what is stored. Raises ToolError when a packed weight belongs to no such layer.
    """
    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding))
    }
    stray = sorted(set(packed) - {f"{name}.weight" for name in modules})
    if stray:
        raise ToolError(f"the packed weight `{stray[0]}` belongs to no linear layer or embedding")
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Conv2d) and Patches.fits(module):
            model.set_submodule(name, Patches(module))
    shared: tuple[torch.Tensor, Weight] | None = None
    # Linear layers first: an embedding looks whether the output matrix holds its values.
    for name, module in sorted(modules.items(), key=lambda each: isinstance(each[1], torch.nn.Embedding)):
        values = module.weight.detach()
        if isinstance(module, torch.nn.Linear):
            stored = Weight(packed.get(f"{name}.weight", values))
            if module is output:
                shared = values, stored
            model.set_submodule(name, Linear(stored, module.bias))
        elif shared is not None and f"{name}.weight" not in packed and torch.equal(values, shared[0]):
            model.set_submodule(name, Embedding(shared[1]))
        else:
            model.set_submodule(name, Embedding(Weight(packed.get(f"{name}.weight", values))))
