"""Integer weights: packed as they are, or rounded a second time only when that is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from modelbuild.api import Artifact, ModelInfo
from modelbuild.errors import ModelbuildError
from modelbuild.toolkit.gguf_model import source_tensors
from modelbuild.toolkit.packed_weights import PackedWeight
from tests.tiny_text import call
from tests.toolchains.gguf.maker import Maker, llama_logits, random_model, torch_logits

ROUNDING = {"bits": 4, "group_size": 32, "symmetric": True, "observer": "minmax", "embeddings": "rtn"}
BUILT_IN = {"type": "auto", "embeddings": "auto", "allow_requantize": False, "licence": ""}


@pytest.fixture(scope="module")
def floats(text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelInfo]:
    return random_model(text, tmp_path_factory.mktemp("floats") / "model", num_hidden_layers=2)


def quantized(floats: tuple[Path, ModelInfo], out: Path, **changed: object) -> tuple[Path, ModelInfo]:
    directory, info = floats
    params = {**ROUNDING, **changed}
    call("quantize/tool.py", params, {"model": directory}, {"model": out})
    return out, ModelInfo(
        Artifact("model", "tree"),
        info.task,
        info.architecture,
        f"int{params['bits']}",
        "compressed-tensors",
        quantization={"scheme": "rtn", **params},
    )


@pytest.mark.parametrize(
    ("changed", "kind"),
    [({}, "Q4_0"), ({"bits": 8, "group_size": 0}, "Q8_0"), ({"embeddings": "float"}, "Q4_0")],
)
def test_auto_writes_the_bytes_of_the_built_in_rule(
    floats: tuple[Path, ModelInfo], environments: Path, tmp_path: Path, changed: dict[str, object], kind: str
) -> None:
    directory, info = quantized(floats, tmp_path / "int", **changed)
    file = Maker(environments, directory, info).make("auto", tmp_path / "out")
    outputs = {"model": tmp_path / "m.gguf", "tensors": tmp_path / "t.json"}
    call("gguf/tool.py", {**BUILT_IN, "file_type": kind}, {"model": directory}, outputs)
    assert file.read_bytes() == outputs["model"].read_bytes()
    rows = json.loads(file.with_name("tensors.json").read_text())["tensors"]
    assert {row["how"] for row in rows} == {"stored", "repacked"}
    sources = {source.name: source.weight for source in source_tensors(directory)}
    for tensor in gguf.GGUFReader(file).tensors:
        weight = sources[tensor.name]
        if isinstance(weight, PackedWeight):
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert values.tobytes() == weight.dequantized().tobytes()


def test_a_second_rounding_is_refused_unless_allowed(
    floats: tuple[Path, ModelInfo], environments: Path, tmp_path: Path
) -> None:
    directory, info = quantized(floats, tmp_path / "int4")
    with pytest.raises(ModelbuildError, match="Q4_K_M would round its integer weights a second time"):
        Maker(environments, directory, info).make("Q4_K_M", tmp_path / "refused")
    allowed = Maker(environments, directory, info, attributes={"allow_requantize": True})
    file = allowed.make("Q4_K_M", tmp_path / "allowed")
    found = np.concatenate([a - b for a, b in zip(llama_logits(file), torch_logits(directory), strict=True)])
    assert np.abs(found).max() < 0.3


def test_an_output_matrix_that_equals_the_embedding_is_kept_when_it_was_planned(
    text: Path, environments: Path, tmp_path: Path
) -> None:
    """What is on disk was promised at analysis: a model that is not tied has two matrices, whatever is in them."""
    from safetensors.numpy import load_file, save_file

    directory, info = random_model(text, tmp_path / "model", tie_word_embeddings=False, num_hidden_layers=1)
    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    file = Maker(environments, directory, info).make("Q8_0", tmp_path / "out")
    names = [tensor.name for tensor in gguf.GGUFReader(file).tensors]
    assert {"output.weight", "token_embd.weight"} < set(names)
    expected = torch_logits(directory)
    assert max(np.abs(a - b).max() for a, b in zip(llama_logits(file), expected, strict=True)) < 0.05
