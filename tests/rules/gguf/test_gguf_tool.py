import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from safetensors.torch import load_file

from modelbuild.toolkit.language_model import LanguageModel, load_vocabulary
from modelbuild.toolkit.llama_cpp import LlamaCpp
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call

ROUNDING = {"bits": 4, "group_size": 32, "symmetric": True, "observer": "minmax", "embeddings": "rtn"}
PROBES = (
    "climb to 40 m, then hold for ten seconds",
    "  two  spaces, and a tab\there",
    "line\nbreaks\n\n and \r\n more ",
    "digits 1234567890 12a34 3.14159",
    "naïve Ünïcode 日本語 😀 \u200b",
    "def f(x):\n    return {'a': [x, -1]}  # it's code",
    "don't WE'LL i'm",
    "!!!???...---",
    "",
)


def write(model: Path, out: Path, **changed: Any) -> Path:
    params = {
        "type": "auto",
        "file_type": "F32",
        "embeddings": "auto",
        "allow_requantize": False,
        "licence": "",
        **changed,
    }
    call("gguf/tool.py", params, {"model": model}, {"model": out, "tensors": out.with_suffix(".json")})
    return out


@pytest.fixture(scope="module")
def int4(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int4") / "model"
    call("quantize/tool.py", ROUNDING, {"model": text / "teacher"}, {"model": out})
    return out


def q4_0(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Dequantize rows of Q4_0 blocks: a float16 scale, then 16 bytes of two codes each."""
    blocks = data.reshape(data.shape[0], -1, 18)
    scales = blocks[..., :2].copy().view(np.float16).astype(np.float32)
    codes = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=2).astype(np.float32) - 8
    return (scales * codes).reshape(data.shape[0], -1)


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).transpose(1, 2).reshape(weight.shape)


def test_every_int4_weight_is_the_same_in_q4_0(int4: Path, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(write(int4, tmp_path / "m.gguf"))
    stored = load_file(int4 / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    found = {tensor.name: tensor for tensor in reader.tensors}
    compared = 0
    for key, packed in stored.items():
        if not key.endswith(".weight_packed") or key.startswith("lm_head"):
            continue
        name = key.removesuffix("_packed")
        codes = unpack_from_int32(packed, 4, stored[f"{name}_shape"])
        expected = codes.float() * stored[f"{name}_scale"].repeat_interleave(32, 1)
        if re.search("[qk]_proj", name):
            expected = interleaved(expected, 2)
        tensor = found.pop(names.get_name(name, try_suffixes=(".weight",)))
        assert tensor.tensor_type == gguf.GGMLQuantizationType.Q4_0
        ours = q4_0(tensor.data)
        theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert ours.astype(np.float16).tobytes() == expected.half().numpy().tobytes()
        assert ours.tobytes() == theirs.tobytes() == expected.numpy().tobytes()
        compared += 1
    assert compared == 14
    embedding = found.pop("token_embd.weight")
    dense = stored["model.embed_tokens.weight"].numpy()
    assert embedding.tensor_type == gguf.GGMLQuantizationType.Q4_0
    assert q4_0(embedding.data).tobytes() == dense.tobytes()
    assert "output.weight" not in found  # Equal to the embedding, stored once.
    assert {tensor.tensor_type for tensor in found.values()} == {gguf.GGMLQuantizationType.F32}


def test_int8_is_repacked_as_q8_0(text: Path, tmp_path: Path) -> None:
    params = {**ROUNDING, "bits": 8, "group_size": 0}
    call("quantize/tool.py", params, {"model": text / "teacher"}, {"model": tmp_path / "int8"})
    reader = gguf.GGUFReader(write(tmp_path / "int8", tmp_path / "m.gguf"))
    tensor = next(t for t in reader.tensors if t.name == "blk.0.ffn_up.weight")
    stored = load_file(tmp_path / "int8/model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    codes = unpack_from_int32(stored[f"{name}_packed"], 8, stored[f"{name}_shape"])
    expected = codes.float() * stored[f"{name}_scale"]
    assert tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0
    assert gguf.quants.dequantize(tensor.data, tensor.tensor_type).tobytes() == expected.numpy().tobytes()


def test_llama_cpp_gives_the_logits_and_answers_of_torch(text: Path, tmp_path: Path) -> None:
    model, vocabulary = LanguageModel().load(text / "teacher"), load_vocabulary(text / "teacher")
    file = write(text / "teacher", tmp_path / "m.gguf")
    with LlamaCpp(file, threads=1, sequences=3, length=64) as llama:
        prompts = [llama.prompt(probe[:20]) for probe in PROBES]
        logits = llama.logits(prompts)
        answers = llama.generate(prompts, 8)
    for prompt, theirs, answer in zip(prompts, logits, answers, strict=True):
        with torch.inference_mode():
            ours = model(torch.tensor([prompt])).logits[0]
            assert np.abs(theirs - ours.numpy()).max() < 1e-5
            tokens = list(prompt)
            while len(tokens) < len(prompt) + 8:
                token = int(model(torch.tensor([tokens])).logits[0, -1].argmax())
                if token == vocabulary.eos:
                    break
                tokens.append(token)
        assert answer == tokens[len(prompt) :]


def test_llama_cpp_tokenizes_as_the_tokenizer_does(text: Path, tmp_path: Path) -> None:
    vocabulary = load_vocabulary(text / "teacher")
    with LlamaCpp(write(text / "teacher", tmp_path / "m.gguf"), threads=1, sequences=1, length=8) as llama:
        assert (llama.bos, llama.eos, llama.vocab_size) == (vocabulary.bos, vocabulary.eos, vocabulary.size)
        for probe in PROBES:
            assert llama.tokenize(probe) == vocabulary.encode([probe])[0], probe
            assert llama.prompt(probe) == vocabulary.prompts([probe])[0], probe
            assert llama.detokenize(llama.tokenize(probe)) == probe
        # What a user types is text, even where it looks like a control token.
        assert llama.detokenize(llama.tokenize("<eos>")) == "<eos>"
        assert llama.tokenize("<eos>", special=True) == vocabulary.encode(["<eos>"])[0] == [llama.eos]


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1"])
def test_a_type_is_that_of_every_matrix_and_reruns_are_equal(text: Path, tmp_path: Path, kind: str) -> None:
    one, two = (write(text / "teacher", tmp_path / name, type=kind) for name in ("1.gguf", "2.gguf"))
    assert one.read_bytes() == two.read_bytes()
    types = {row["type"] for row in json.loads((tmp_path / "1.json").read_text())["tensors"]}
    assert types == {"F32", kind}
    with LlamaCpp(one, threads=1, sequences=1, length=8) as llama:
        assert llama.logits([[1, 2]])[0].shape == (2, llama.vocab_size)


def test_a_second_rounding_is_refused_unless_allowed(int4: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="without rounding it a second time"):
        write(int4, tmp_path / "m.gguf", type="Q4_1")
    write(int4, tmp_path / "m.gguf", type="Q4_1", allow_requantize=True)
    rows = json.loads((tmp_path / "m.json").read_text())["tensors"]
    assert "converted" in {row["how"] for row in rows}


@pytest.mark.parametrize("changed", [{"symmetric": False}, {"group_size": 16}])
def test_a_grid_that_q4_0_lacks_is_refused(text: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    call("quantize/tool.py", {**ROUNDING, **changed}, {"model": text / "teacher"}, {"model": tmp_path / "q"})
    with pytest.raises(ToolError, match="without rounding it a second time"):
        write(tmp_path / "q", tmp_path / "m.gguf")


def test_an_unknown_pre_tokenizer_is_refused(text: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in (text / "teacher").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    data = json.loads((model / "tokenizer.json").read_text())
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"
    (model / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ToolError, match="no pre-tokenizer that splits"):
        write(model, tmp_path / "m.gguf")


def test_pickles_are_refused(text: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in (text / "teacher").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ToolError, match="pickled data"):
        write(model, tmp_path / "m.gguf")
