import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file

from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.packed_weights import pack, read_dense, unpack
from modelbuild.toolkit.quantization import Grid, round_to_nearest
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call, tree

PARAMS = {"bits": 4, "group_size": 32, "symmetric": True, "observer": "minmax", "embeddings": "rtn"}
GPTQ = {**PARAMS, "calibration_samples": 8, "damping": 0.05, "seed": 0}


def quantize(text: Path, out: Path, tool: str = "tool", **changed: Any) -> Path:
    params = {**(GPTQ if tool == "gptq_tool" else PARAMS), **changed}
    inputs = {"model": text / "teacher", "calibration": text / "dataset"}
    call(f"quantize/{tool}.py", params, inputs, {"model": out})
    return out


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_packing_is_that_of_compressed_tensors(bits: int) -> None:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    codes = np.random.default_rng(bits).integers(low, high, (5, 45), endpoint=True).astype(np.int8)
    packed = pack(codes, bits)
    assert torch.equal(torch.from_numpy(packed), pack_to_int32(torch.from_numpy(codes), bits))
    assert np.array_equal(unpack(packed, bits, 45), codes)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_each_weight_is_the_nearest_of_its_grid(bits: int, symmetric: bool) -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(bits))
    quantized = round_to_nearest(weight, Grid(bits, 32, symmetric))
    scales = np.repeat(quantized.scales, 32, axis=1)
    zeros = 0 if quantized.zeros is None else np.repeat(quantized.zeros, 32, axis=1).astype(np.float32)
    grid = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    reachable = (grid[None, None] - np.asarray(zeros)[..., None]) * scales[..., None]
    least = np.abs(reachable - weight.numpy()[..., None]).min(-1)
    assert np.allclose(np.abs(quantized.dequantized() - weight.numpy()), least, atol=1e-6)
    assert np.array_equal(quantized.scales.astype(np.float16).astype(np.float32), quantized.scales)


def test_mse_is_no_worse_than_minmax() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1)) ** 3

    def error(observer: str) -> float:
        made = round_to_nearest(weight, Grid(4, 32, symmetric=True, observer=observer))
        return float(np.square(made.dequantized() - weight.numpy()).sum())

    assert error("mse") < error("minmax")


def test_a_matrix_of_zeros_stays_zero() -> None:
    for symmetric in (True, False):
        made = round_to_nearest(torch.zeros(2, 32), Grid(4, 32, symmetric))
        assert not made.dequantized().any()


@pytest.mark.parametrize(
    "changed",
    [{}, {"embeddings": "float"}, {"bits": 8, "group_size": 0}, {"bits": 3}, {"symmetric": False}],
)
def test_transformers_reads_the_very_weights(text: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    out = quantize(text, tmp_path / "q", **changed)
    model = LanguageModel().load(out)
    tokens = torch.arange(12)[None]
    with torch.inference_mode():
        theirs = model(tokens).logits
    dense = read_dense(out, changed.get("bits", 4))
    plain = LanguageModel().load(text / "teacher")
    plain.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in dense.items()}, strict=False)
    with torch.inference_mode():
        assert torch.equal(plain(tokens).logits, theirs)


def test_the_report_names_every_layer_and_what_stayed(text: Path, tmp_path: Path) -> None:
    report = json.loads((quantize(text, tmp_path / "q") / "quantization.json").read_text())
    names = [layer["name"] for layer in report["layers"]]
    assert len(names) == 16
    assert {"model.embed_tokens", "lm_head", "model.layers.1.mlp.down_proj"} <= set(names)
    assert all(0 < layer["relative_error"] < 0.3 for layer in report["layers"])
    assert {row["name"].rpartition(".")[0].rpartition(".")[2] for row in report["not_quantized"]} == {
        "norm",
        "input_layernorm",
        "post_attention_layernorm",
    }


def test_rounding_twice_gives_the_same_bytes(text: Path, tmp_path: Path) -> None:
    assert tree(quantize(text, tmp_path / "1")) == tree(quantize(text, tmp_path / "2"))


def test_a_group_that_does_not_divide_is_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="groups of 24 do not divide"):
        quantize(text, tmp_path / "q", group_size=24)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_gptq_stays_on_the_grid_and_beats_rounding_on_calibration(text: Path, tmp_path: Path) -> None:
    gptq = quantize(text, tmp_path / "gptq", "gptq_tool")
    stored = load_file(gptq / "model.safetensors")
    scales = [value for name, value in stored.items() if name.endswith("_scale")]
    assert len(scales) == 15
    assert all(torch.equal(scale, scale.half().float()) for scale in scales)
    again = quantize(text, tmp_path / "again", "gptq_tool")
    assert tree(gptq) == tree(again)
    schemes = {row["scheme"] for row in json.loads((gptq / "quantization.json").read_text())["layers"]}
    assert schemes == {"gptq", "rtn"}  # rtn: the embedding


def test_too_little_calibration_is_an_error(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="has 8 examples, fewer than 9"):
        quantize(text, tmp_path / "q", "gptq_tool", calibration_samples=9)
