"""Every kind of file: made by the tool in its own environment, run in llama.cpp, compared with torch."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch

from modelbuild.api import Conversion, tensor_types
from modelbuild.toolkit.gguf_imatrix import read_imatrix
from modelbuild.toolkit.gguf_model import source_tensors
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.request import ToolError
from tests.toolchains.gguf.maker import ARCHITECTURE, HOST, Maker, llama_logits, random_model, torch_logits

Floats = npt.NDArray[np.float32]
LARGEST_ERRORS = {
    "F32": 1e-5,
    "F16": 0.003,
    "Q8_0": 0.04,
    "Q6_K": 0.1,
    "Q5_K_M": 0.18,
    "Q4_K_M": 0.32,
    "Q3_K_M": 0.42,
    "Q4_1": 0.42,
    "Q4_0": 0.55,
    "Q2_K": 0.8,
}
"""Of a logit, where logits are between -1.5 and 1.5: about one and a half times what was measured."""
UNIFORM = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1")


@pytest.fixture(scope="module")
def wide(text: Path, tmp_path_factory: pytest.TempPathFactory, environments: Path) -> Maker:
    """A random Llama of 256 columns, four layers, grouped heads."""
    return Maker(environments, *random_model(text, tmp_path_factory.mktemp("wide") / "model"))


@pytest.fixture(scope="module")
def expected(wide: Maker) -> list[Floats]:
    return torch_logits(wide.directory)


@pytest.fixture(scope="module")
def made(wide: Maker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    return {kind: wide.make(kind, folder / kind) for kind in LARGEST_ERRORS}


def errors(file: Path, expected: list[Floats]) -> Floats:
    found = [np.abs(a - b).ravel() for a, b in zip(llama_logits(file), expected, strict=True)]
    return np.concatenate(found)


@pytest.mark.parametrize("kind", LARGEST_ERRORS)
def test_llama_cpp_gives_the_logits_of_torch(
    made: dict[str, Path], expected: list[Floats], kind: str
) -> None:
    assert errors(made[kind], expected).max() < LARGEST_ERRORS[kind]
    same = [a.argmax(-1) == b.argmax(-1) for a, b in zip(llama_logits(made[kind]), expected, strict=True)]
    assert np.concatenate(same).mean() > (0.5 if kind in ("Q2_K", "Q4_0", "Q4_1") else 0.75)


def test_more_bits_are_more_faithful(made: dict[str, Path], expected: list[Floats]) -> None:
    for order in (
        ("F32", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"),
        ("Q8_0", "Q4_1", "Q4_0"),
    ):
        mean = [float(np.square(errors(made[kind], expected)).mean()) for kind in order]
        assert mean == sorted(mean), dict(zip(order, mean, strict=True))
        sizes = [made[kind].stat().st_size for kind in order]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("kind", LARGEST_ERRORS)
def test_the_file_is_what_analysis_said(
    wide: Maker, made: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    again = wide.make(kind, tmp_path / "again")
    assert again.read_bytes() == made[kind].read_bytes()  # Another process, another directory.
    planned = tensor_types(ARCHITECTURE, kind, pure=kind in UNIFORM)
    names = {source.source: source.name for source in source_tensors(wide.directory)}
    listed = json.loads(made[kind].with_name("tensors.json").read_text())["tensors"]
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(made[kind]).tensors}
    assert {names[source]: type_ for source, type_ in planned.items()} == {
        row["name"]: row["type"] for row in listed
    }
    assert {name: tensor.tensor_type.name for name, tensor in stored.items()} == {
        row["name"]: row["type"] for row in listed
    }
    assert {name: tensor.n_bytes for name, tensor in stored.items()} == {
        row["name"]: row["bytes"] for row in listed
    }
    size = made[kind].stat().st_size
    predicted = wide.toolchain().footprint(Conversion(wide.info, f"gguf:{kind}", HOST))
    assert abs(predicted.disk / size - 1) < 0.01
    padding = predicted.weights - sum(row["bytes"] for row in listed)
    assert 0 <= padding < 32 * len(listed)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_file_with_a_third_of_header_is_told(
    text: Path, tmp_path: Path, environments: Path, family: str
) -> None:
    tiny = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_key_value_heads": 8}
    maker = Maker(
        environments, *random_model(text, tmp_path / "model", **tiny, model_type=family, head_dim=8)
    )
    size = maker.make("Q4_0", tmp_path / "out").stat().st_size
    predicted = maker.toolchain().footprint(Conversion(maker.info, "gguf:Q4_0", HOST))
    assert predicted.detail["header"] > size / 3
    assert abs(predicted.disk / size - 1) < 0.01


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_ternary_weights_are_kept(text: Path, tmp_path: Path, environments: Path, kind: str) -> None:
    """A model whose weights are -s, 0 and s, as BitNet trains them, loses nothing but in its embedding."""
    directory, info = random_model(text, tmp_path / "model")
    task = LanguageModel()
    model = task.load(directory)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.copy_(torch.sign(parameter) * (parameter.abs() > 0.01) * 0.03125)
    task.save(model, directory, text / "tokenizer")
    file = Maker(environments, directory, info).make(kind, tmp_path / kind)
    sources = {source.name: source.weight for source in source_tensors(directory)}
    ternary = 0
    for tensor in gguf.GGUFReader(file).tensors:
        if tensor.tensor_type.name == kind:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(values, sources[tensor.name])
            ternary += 1
    assert ternary == 7 * 4
    assert errors(file, torch_logits(directory)).max() < 0.3


def test_weights_that_are_not_ternary_are_not_thrown_away(wide: Maker, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"are not -s, 0 and s: TQ2_0 would change them by [78]\d%"):
        wide.make("TQ2_0", tmp_path / "out")


def test_any_number_of_threads_gives_the_same_bytes(
    wide: Maker, made: dict[str, Path], tmp_path: Path
) -> None:
    threaded = Maker(wide.environments, wide.directory, wide.info, attributes={"threads": 3})
    assert threaded.make("Q4_K_M", tmp_path / "t").read_bytes() == made["Q4_K_M"].read_bytes()


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K_M", "Q4_K_M", "Q4_0"])
def test_an_importance_matrix_saves_what_matters(
    text: Path, wide: Maker, made: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    weighed = Maker(wide.environments, wide.directory, wide.info, text / "dataset").make(
        kind, tmp_path / kind
    )
    matrix = read_imatrix(tmp_path / kind / "imatrix.gguf")
    reader = gguf.GGUFReader(weighed)
    assert reader.get_field("quantize.imatrix.entries_count").contents() == 7 * 4 == len(matrix.sums)
    assert reader.get_field("quantize.imatrix.chunks_count").contents() == 8
    plain = {tensor.name: tensor for tensor in gguf.GGUFReader(made[kind]).tensors}
    sources = {source.name: source.weight for source in source_tensors(wide.directory)}
    losses = np.zeros(2)
    for tensor in reader.tensors:
        importance = matrix.importance(tensor.name)
        if importance is not None:
            assert tensor.tensor_type == plain[tensor.name].tensor_type
            for column, each in enumerate((tensor, plain[tensor.name])):
                difference = gguf.quants.dequantize(each.data, each.tensor_type) - sources[tensor.name]
                losses[column] += float((np.square(difference) * importance).sum())
    assert losses[0] < 0.97 * losses[1]


def test_tensors_that_were_not_planned_are_an_error(wide: Maker, text: Path, tmp_path: Path) -> None:
    directory, _ = random_model(text, tmp_path / "model", num_hidden_layers=1)
    with pytest.raises(ToolError, match=r"other tensors than its architecture says.*model.layers.1"):
        Maker(wide.environments, directory, wide.info).make("Q4_K_M", tmp_path / "out")
