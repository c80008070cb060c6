"""The layers that stand for a model's own: the same function, weights stored as the kernels read them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelbuild.toolkit.packed_weights import PackedWeight
from modelbuild.toolkit.request import ToolError
from toolchains.tvm import layers


def packed(rows: int, columns: int, bits: int, groups: int = 1, *, zeros: bool = False) -> PackedWeight:
    made = np.random.default_rng(0)
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    return PackedWeight(
        made.integers(low, high, (rows, columns), dtype=np.int8),
        made.random((rows, groups), dtype=np.float32) + np.float32(0.5),
        made.integers(low, high, (rows, groups), dtype=np.int8) if zeros else None,
        bits,
    )


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    ("bits", "columns", "groups"), [(8, 12, 1), (8, 12, 3), (4, 12, 1), (4, 12, 3), (4, 7, 1)]
)
def test_packed_weights_stand_for_the_same_numbers(bits: int, columns: int, groups: int, zeros: bool) -> None:
    weight = packed(6, columns, bits, groups, zeros=zeros)
    dense = torch.from_numpy(weight.dequantized())
    inputs = torch.rand(3, columns, generator=torch.Generator().manual_seed(0))
    linear = layers.Linear(layers.Weight(weight), None)
    rounding = 1e-6 * float((inputs @ dense.abs().T).max())  # The order of the sums is another one.
    torch.testing.assert_close(linear(inputs), inputs @ dense.T, rtol=0, atol=rounding)
    ids = torch.tensor([[0, 5, 5, 2]])
    assert torch.equal(layers.Embedding(layers.Weight(weight))(ids), dense[ids])


def test_four_bits_take_half_a_byte() -> None:
    assert layers.pack_columns(packed(6, 12, 4)).shape == (6, 6)
    assert layers.pack_columns(packed(6, 7, 4)).shape == (4, 6)
    assert layers.pack_columns(packed(6, 12, 8)).shape == (12, 6)
    assert layers.pack_columns(packed(6, 12, 4)).element_size() == 1


class Tiny(torch.nn.Module):
    """A token table, a layer and an output matrix."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(10, 8)
        self.layer = torch.nn.Linear(8, 8)
        self.head = torch.nn.Linear(8, 10, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layer(self.table(ids)))
        return logits


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_computes_the_same_with_them(tied: bool) -> None:
    model, ids = Tiny(tied=tied), torch.tensor([[1, 9, 4]])
    expected = model(ids)
    layers.replace_layers(model, {})
    torch.testing.assert_close(model(ids), expected)
    assert (model.table.stored is model.head.stored) is tied


def test_a_table_with_the_values_of_the_packed_output_matrix_shares_its_codes() -> None:
    model, weight = Tiny(tied=False), packed(10, 8, 4, 2)
    values = torch.from_numpy(weight.dequantized())
    with torch.no_grad():
        model.head.weight.copy_(values)
        model.table.weight.copy_(values)
    layers.replace_layers(model, {"head.weight": weight})
    assert model.table.stored is model.head.stored
    assert {name for name, _ in model.named_buffers() if "table" in name} == {
        "table.stored.codes",
        "table.stored.scales",
        "table.stored.zeros",
    }


def test_a_packed_weight_without_a_layer_is_an_error() -> None:
    with pytest.raises(ToolError, match=r"`nowhere\.weight` belongs to no linear layer"):
        layers.replace_layers(Tiny(tied=False), {"nowhere.weight": packed(8, 8, 4)})


@pytest.mark.parametrize(("size", "kernel"), [((8, 8), (2, 2)), ((9, 8), (3, 2)), ((9, 9), (2, 2))])
def test_patches_are_a_linear_layer(size: tuple[int, int], kernel: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 5, kernel, stride=kernel)
    assert layers.Patches.fits(layer)
    pixels = torch.rand(1, 3, *size)
    torch.testing.assert_close(layers.Patches(layer)(pixels), layer(pixels))


def test_kernels_that_overlap_are_no_patches() -> None:
    assert not layers.Patches.fits(torch.nn.Conv2d(3, 5, 3, stride=2))
    assert not layers.Patches.fits(torch.nn.Conv2d(3, 5, 2, stride=2, padding=1))
