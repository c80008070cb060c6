"""GPTQModel in its own environment: the format, the bytes, and what reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modelbuild.api import Artifact, ModelInfo, PythonTool, checkpoint_bytes
from modelbuild.rules.quantize.rule import GPTQMODEL
from modelbuild.testing import run_tool
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.packed_weights import read_dense
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import ARCHITECTURE, VOCAB_SIZE, call, train, tree

pytestmark = pytest.mark.slow

PARAMS = {
    "bits": 4,
    "group_size": 32,
    "symmetric": True,
    "observer": "minmax",
    "embeddings": "rtn",
    "calibration_samples": 8,
    "damping": 0.05,
    "seed": 0,
}
COMPARE = '''
import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"
import torch
from transformers import AutoModelForCausalLM, GPTQConfig


def main(request):
    """What transformers answers with GPTQModel's kernels."""
    logits = []
    for chosen in ({}, {"quantization_config": GPTQConfig(bits=4, backend="torch")}):
        path = str(request.inputs["model"])
        loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **chosen).eval()
        assert type(loaded.model.layers[0].mlp.up_proj).__module__.startswith("gptqmodel")
        with torch.inference_mode():
            logits.append(loaded(torch.arange(12)[None]).logits)
    torch.save(logits, request.outputs["logits"])
'''


def run(
    tool: PythonTool,
    environments: Path,
    directory: Path,
    inputs: dict[str, Path],
    outputs: tuple[str, ...],
    params: dict[str, Any],
) -> dict[str, Path]:
    directory.mkdir()
    return run_tool(
        tool,
        directory,
        inputs=inputs,
        outputs=outputs,
        params=params,
        threads=2,
        environments=environments,
    )


def quantize(environments: Path, text: Path, out: Path, model: str = "teacher", **changed: Any) -> Path:
    inputs = {"model": text / model, "calibration": text / "dataset"}
    return run(GPTQMODEL, environments, out, inputs, ("model",), {**PARAMS, **changed})["model"]


@pytest.fixture(scope="module")
def int4(environments: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantize(environments, text, tmp_path_factory.mktemp("gptqmodel") / "int4")


def weights(model: Path, bits: int = 4, zero: int = 8) -> dict[str, torch.Tensor]:
    """The linear layers of AutoGPTQ's format, read the way its documents say; symmetric grids only."""
    stored = load_file(model / "model.safetensors")
    shifts = torch.arange(0, 32, bits)
    dense = {}
    for key in [name for name in stored if name.endswith(".qweight")]:
        name = key.removesuffix(".qweight")
        words = stored[key][:, None, :] >> shifts[None, :, None]
        codes = (words & ((1 << bits) - 1)).flatten(0, 1)
        nibbles = (stored[f"{name}.qzeros"][:, :, None] >> shifts) & ((1 << bits) - 1)
        assert (nibbles + 1 == zero).all()
        groups = stored[f"{name}.g_idx"].long()
        assert torch.equal(groups, torch.arange(len(groups)) // (len(groups) // len(nibbles)))
        assert stored[f"{name}.scales"].dtype == torch.float16
        dense[f"{name}.weight"] = ((codes - zero) * stored[f"{name}.scales"].float()[groups]).T.contiguous()
    return dense


def logits(model: Path) -> torch.Tensor:
    with torch.inference_mode():
        found = LanguageModel().load(model)(torch.arange(12)[None]).logits
    assert isinstance(found, torch.Tensor)
    return found


def test_two_runs_give_the_same_bytes(environments: Path, text: Path, int4: Path, tmp_path: Path) -> None:
    again = quantize(environments, text, tmp_path / "again")
    assert tree(int4) == tree(again)
    assert "quant_log.csv" not in tree(int4)
    for name in ("config.json", "quantize_config.json"):
        assert "/tmp" not in (int4 / name).read_text()


def told(architecture: dict[str, Any]) -> ModelInfo:
    """What the rule tells of a model with `PARAMS`."""
    keys = {**architecture, "vocab_size": VOCAB_SIZE}
    quantization = {"scheme": "gptq", **PARAMS}
    tree = Artifact("model", "tree")
    return ModelInfo(tree, "text_generation", keys, "int4", "gptq", quantization)


def written(model: Path) -> int:
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def test_its_size_is_told_before(int4: Path) -> None:
    assert checkpoint_bytes(told(ARCHITECTURE)) == written(int4)


def test_it_reads_as_what_the_format_says(int4: Path) -> None:
    dense, ours = weights(int4), read_dense(int4, 4)
    assert len(dense) == 14
    for name, weight in dense.items():
        assert ours[name].tobytes() == weight.numpy().tobytes()
    config = json.loads((int4 / "quantize_config.json").read_text())
    assert (config["quant_method"], config["checkpoint_format"], config["desc_act"]) == (
        "gptq",
        "gptq",
        False,
    )
    report = json.loads((int4 / "quantization.json").read_text())
    assert {row["scheme"] for row in report["layers"]} == {"gptq", "rtn"}  # rtn: the embedding
    assert all(0 < row["relative_error"] < 0.3 for row in report["layers"])


def test_transformers_gives_the_same_logits(environments: Path, int4: Path, tmp_path: Path) -> None:
    """With the kernel it chooses, and with the one that multiplies by dequantized halves; ours are float32."""
    (tmp_path / "compare_tool.py").write_text(COMPARE)
    tool = PythonTool(tmp_path / "compare_tool.py", lock=GPTQMODEL.lock)
    made = run(tool, environments, tmp_path / "run", {"model": int4}, ("logits",), {})
    ours = logits(int4)
    for theirs, bound in zip(torch.load(made["logits"]), (0.02, 0.002), strict=True):
        assert (theirs - ours).abs().max() < bound * ours.abs().max()
        assert torch.equal(theirs.argmax(-1), ours.argmax(-1))


def test_every_weight_is_the_same_in_q4_0(int4: Path, tmp_path: Path) -> None:
    params = {
        "type": "auto",
        "file_type": "F32",
        "embeddings": "auto",
        "allow_requantize": False,
        "licence": "",
    }
    file = tmp_path / "m.gguf"
    call("gguf/tool.py", params, {"model": int4}, {"model": file, "tensors": tmp_path / "m.json"})
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    expected = weights(int4)
    expected["model.embed_tokens.weight"] = load_file(int4 / "model.safetensors")["model.embed_tokens.weight"]
    for name, stored in expected.items():
        weight = stored
        if re.search("[qk]_proj", name):
            weight = stored.reshape(2, 2, 8, -1).transpose(1, 2).reshape(stored.shape)
        tensor = found.pop(names.get_name(name, try_suffixes=(".weight",)))
        assert tensor.tensor_type == gguf.GGMLQuantizationType.Q4_0
        blocks = tensor.data.reshape(tensor.data.shape[0], -1, 18)
        scales = blocks[..., :2].copy().view(np.float16).astype(np.float32)
        codes = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=2).astype(np.float32) - 8
        packed = (scales * codes).reshape(weight.shape)
        assert packed.astype(np.float16).tobytes() == weight.half().numpy().tobytes()
        assert packed.tobytes() == weight.numpy().tobytes()
    assert {tensor.tensor_type for tensor in found.values()} == {gguf.GGMLQuantizationType.F32}


@pytest.mark.parametrize(
    "changed",
    [{"bits": 8, "group_size": 0}, {"symmetric": False, "embeddings": "float", "observer": "mse"}],
)
def test_other_grids(environments: Path, text: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    out = quantize(environments, text, tmp_path / "q", **changed)
    report = json.loads((out / "quantization.json").read_text())
    bound = 0.02 if changed.get("bits") == 8 else 0.3
    assert all(0 < row["relative_error"] < bound for row in report["layers"])
    assert logits(out).isfinite().all()
    if changed.get("bits") == 8:
        dense = weights(out, 8, 128)
        assert all(np.array_equal(read_dense(out, 8)[name], weight) for name, weight in dense.items())


def test_an_output_matrix_of_its_own(environments: Path, text: Path, tmp_path: Path) -> None:
    architecture = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "tie_word_embeddings": False,
    }
    parent = train(text, tmp_path / "untied", architecture=architecture)
    inputs = {"model": parent, "calibration": text / "dataset"}
    made = run(GPTQMODEL, environments, tmp_path / "q", inputs, ("model",), PARAMS)["model"]
    stored = load_file(made / "embeddings.safetensors")
    assert {name.rpartition(".")[0] for name in stored} == {"model.embed_tokens", "lm_head"}
    assert checkpoint_bytes(told(architecture)) == written(made)
    assert (logits(made) - logits(parent)).abs().max() > 0


def test_a_hessian_that_cannot_be_inverted_is_an_error(
    environments: Path, text: Path, tmp_path: Path
) -> None:
    with pytest.raises(ToolError, match="their Hessian is singular"):
        quantize(environments, text, tmp_path / "q", damping=1e-12, calibration_samples=1)
