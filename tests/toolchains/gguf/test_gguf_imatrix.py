from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from modelbuild.toolkit.gguf_imatrix import Imatrix, read_imatrix, write_imatrix
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call

TOOL = Path(__file__).resolve().parents[3] / "toolchains/gguf/imatrix_tool.py"
PARAMS = {"split": "calibration", "limit": 0, "sequence_length": 64}


def measure(text: Path, out: Path, **changed: object) -> Path:
    inputs = {"model": text / "teacher", "dataset": text / "dataset"}
    call(str(TOOL), {**PARAMS, **changed}, inputs, {"imatrix": out})
    return out


def test_sums_are_those_of_every_text_on_its_own(text: Path, tmp_path: Path) -> None:
    task = LanguageModel()
    model: Any = task.load(text / "teacher")
    examples = task.examples(text / "dataset", "calibration", text / "teacher", sequence_length=64)
    assert len(set(examples.lengths)) > 1  # Padding would be noticed.
    down, attention = np.zeros(32), np.zeros(32)
    with torch.inference_mode():
        for ids in examples.ids:
            output = model(torch.tensor([ids]), output_hidden_states=True)
            layer = model.model.layers[1]
            before = output.hidden_states[1]
            attention += layer.input_layernorm(before)[0].double().square().sum(0).numpy()
            after = (
                before
                + layer.self_attn(
                    layer.input_layernorm(before),
                    position_embeddings=model.model.rotary_emb(before, torch.arange(len(ids))[None]),
                    attention_mask=None,
                )[0]
            )
            hidden = layer.post_attention_layernorm(after)
            inner = torch.nn.functional.silu(layer.mlp.gate_proj(hidden)) * layer.mlp.up_proj(hidden)
            down += inner[0].double().square().sum(0).numpy()
    matrix = read_imatrix(measure(text, tmp_path / "imatrix.gguf"))
    assert (matrix.tokens, matrix.chunks) == (sum(examples.lengths), len(examples.ids))
    assert len(matrix.sums) == 14
    for part in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(matrix.sums[f"blk.1.{part}.weight"], attention, rtol=1e-4)
    np.testing.assert_allclose(matrix.sums["blk.1.ffn_down.weight"], down, rtol=1e-4)
    importance = matrix.importance("blk.1.ffn_down.weight")
    assert importance is not None
    np.testing.assert_allclose(importance * sum(examples.lengths), down, rtol=1e-4)
    assert matrix.importance("output.weight") is None


def test_the_file_is_what_llama_quantize_reads_and_reruns_are_equal(text: Path, tmp_path: Path) -> None:
    one, two = (measure(text, tmp_path / name) for name in ("1.gguf", "2.gguf"))
    assert one.read_bytes() == two.read_bytes()
    reader = gguf.GGUFReader(one)
    fields = {name: reader.get_field(name) for name in reader.fields}
    assert fields["general.type"].contents() == "imatrix"
    assert fields["imatrix.datasets"].contents() == ["calibration"]
    assert fields["imatrix.chunk_count"].contents() == 8
    assert "general.architecture" not in fields
    names = [tensor.name for tensor in reader.tensors]
    assert names[:2] == ["blk.0.attn_k.weight.in_sum2", "blk.0.attn_k.weight.counts"]
    assert {str(tensor.tensor_type.name) for tensor in reader.tensors} == {"F32"}
    assert [list(tensor.shape) for tensor in reader.tensors[:2]] == [[32, 1], [1, 1]]


def test_a_limit_takes_fewer_texts(text: Path, tmp_path: Path) -> None:
    assert read_imatrix(measure(text, tmp_path / "i.gguf", limit=3)).chunks == 3


def test_what_is_no_importance_matrix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.gguf"
    path.write_bytes(b"nothing of the kind, and long enough")
    with pytest.raises(ToolError, match="not a GGUF file"):
        read_imatrix(path)
    write_imatrix(path, Imatrix({}, 1, 1), "calibration")
    with pytest.raises(ToolError, match="one number of tokens"):
        read_imatrix(path)
