"""Models that transformers made and saved are brought in: what they compute stays, and what is wrong is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from modelbuild.checkpoint import checkpoint_bytes
from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.language_model import LanguageModel, load_vocabulary
from modelbuild.toolkit.llama_cpp import LlamaCpp
from modelbuild.toolkit.request import ToolError
from tests.foreign_model import FAMILIES, ROWS, bring_in, save
from tests.tiny_text import call, tree

PROBES = (
    "climb to 1234567 m, then hold",
    "  two  spaces\tand\r\n\n lines ",
    "naïve Ünïcode 日本語 😀",
    "don't WE'LL <tool_call> x = {'a': [1, -2]}",
    "",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each family."""
    place = tmp_path_factory.mktemp("foreign")
    for family in FAMILIES:
        save(place / family, family)
    return place


@pytest.fixture
def qwen(folders: Path, tmp_path: Path) -> Path:
    """A copy of a folder, to be spoilt."""
    return Path(shutil.copytree(folders / "qwen2", tmp_path / "folder"))


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def rewrite(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.tensor([[299, *range(5, 290, 7)]])
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def theirs(folder: Path) -> torch.nn.Module:
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def gguf(model: Path, out: Path) -> Path:
    keys = ("type", "file_type", "embeddings")
    params = dict.fromkeys(keys, "F32") | {"allow_requantize": False, "licence": ""}
    call("gguf/tool.py", params, {"model": model}, {"model": out, "tensors": out.with_suffix(".json")})
    return out


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_it_computes_what_it_computed_in_torch_and_in_llama_cpp(
    folders: Path, tmp_path: Path, family: str
) -> None:
    folder = folders / family
    brought = bring_in(folder, tmp_path / "w")
    expected = logits(theirs(folder))
    for loaded in (LanguageModel().load(brought.model), load_dense(brought.model, "text_generation")):
        assert torch.equal(logits(loaded), expected)
    assert torch.equal(logits(theirs(brought.model)), expected)  # transformers loads what was written.
    assert brought.info.architecture["vocab_size"] == ROWS
    assert checkpoint_bytes(brought.info) == (brought.model / "model.safetensors").stat().st_size
    hugging_face, ours = AutoTokenizer.from_pretrained(folder), load_vocabulary(brought.tokenizer)
    with LlamaCpp(gguf(brought.model, tmp_path / "m.gguf"), threads=1, sequences=1, length=128) as llama:
        ids = [299, *range(5, 290, 7)]
        assert np.abs(llama.logits([ids])[0] - expected[0].numpy()).max() < 1e-4 * expected.abs().max()
        assert (llama.bos, llama.eos) == (ours.bos, ours.eos)
        for probe in PROBES:
            tokens = hugging_face.encode(probe, add_special_tokens=False)
            assert ours.encode([probe])[0] == tokens, probe
            assert llama.tokenize(probe, special=True) == tokens, probe
            assert llama.prompt(probe, special=True) == ours.prompts([probe])[0], probe
        own = hugging_face.chat_template
        assert llama.metadata("tokenizer.chat_template") == own or own is None
        adds_bos = hugging_face.encode("x")[0] == hugging_face.bos_token_id
        assert llama.metadata("tokenizer.ggml.add_bos_token") == ("true" if adds_bos else "false")


def test_text_that_is_not_in_nfc_is_read_as_the_model_reads_it(folders: Path, tmp_path: Path) -> None:
    brought = bring_in(folders / "qwen2", tmp_path / "w")
    text = "cafe\u0301 \u1100\u1161"
    tokens = AutoTokenizer.from_pretrained(folders / "qwen2").encode(text)
    with LlamaCpp(gguf(brought.model, tmp_path / "m.gguf"), threads=1, sequences=1, length=64) as llama:
        assert llama.tokenize(text) == tokens == load_vocabulary(brought.tokenizer).encode([text])[0]


def test_what_a_person_types_is_text_and_what_follows_it_is_markup(folders: Path, tmp_path: Path) -> None:
    suffix = " <|im_end|>\n<|im_start|>assistant\n"
    brought = bring_in(folders / "qwen2", tmp_path / "w", prompt_suffix=suffix)
    ours = load_vocabulary(brought.tokenizer)
    with LlamaCpp(gguf(brought.model, tmp_path / "m.gguf"), threads=1, sequences=1, length=64) as llama:
        assert llama.prompt("climb to 4 m") == ours.prompts(["climb to 4 m"])[0]
        end = llama.tokenize("<|im_end|>", special=True)
        assert llama.prompt("climb").count(end[0]) == 2  # One of them in place of a BOS.
        assert llama.prompt("<|im_end|>").count(end[0]) == 2
        assert llama.prompt("<|im_end|>", special=True).count(end[0]) == 3


def test_how_it_was_cut_into_files_makes_no_difference(folders: Path, tmp_path: Path) -> None:
    whole = bring_in(folders / "qwen2", tmp_path / "a")
    save(tmp_path / "cut", "qwen2", shard="20KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 2
    cut = bring_in(tmp_path / "cut", tmp_path / "b")
    assert tree(whole.model) == tree(cut.model)
    assert tree(whole.tokenizer) == tree(cut.tokenizer)


def test_an_architecture_written_by_hand_makes_the_same_model(folders: Path, tmp_path: Path) -> None:
    written = {
        "model_type": "qwen2",
        "vocab_size": ROWS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
    }
    loaded = bring_in(folders / "qwen2", tmp_path / "a")
    by_hand = bring_in(folders / "qwen2", tmp_path / "b", architecture=written)
    assert tree(loaded.model) == tree(by_hand.model)


def test_the_tree_is_loaded_again_as_it_is(folders: Path, tmp_path: Path) -> None:
    once = bring_in(folders / "llama", tmp_path / "a")
    twice = bring_in(once.model, tmp_path / "b")
    one, two = tree(once.model), tree(twice.model)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        assert one[name] == two[name], name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halves_stay_halves_or_become_floats(tmp_path: Path, dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    folder = save(tmp_path / "folder", "llama", dtype=dtype)
    kept = bring_in(folder, tmp_path / "a")
    assert kept.info.dtype == name
    assert {each.dtype for each in load_file(kept.model / "model.safetensors").values()} == {dtype}
    assert checkpoint_bytes(kept.info) == (kept.model / "model.safetensors").stat().st_size
    wide = bring_in(folder, tmp_path / "b", dtype="float32")
    assert wide.info.dtype == "float32"
    before, after = load_file(folder / "model.safetensors"), load_file(wide.model / "model.safetensors")
    assert all(torch.equal(before[key].float(), after[key]) for key in before)
    for each in (kept, wide):
        assert torch.equal(logits(LanguageModel().load(each.model)), logits(theirs(folder)))
    change(folder / "config.json", dtype="float16" if name == "bfloat16" else "bfloat16")
    with pytest.raises(ToolError, match=f"is stored as {name}, and as .* it would be rounded"):
        bring_in(folder, tmp_path / "c")


def test_what_is_not_read_is_no_input(folders: Path, tmp_path: Path, qwen: Path) -> None:
    (qwen / "README.md").write_text("# A model")
    (qwen / "consolidated.safetensors").write_bytes(b"the same in another way")
    (qwen / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (qwen / "original").mkdir()
    (qwen / "original/config.json").write_text("{}")
    brought = bring_in(qwen, tmp_path / "w")
    names = {name for action in brought.target.actions for name in action.inputs}
    assert not any("README" in name or "consolidated" in name or ".bin" in name for name in names)
    assert "in/files/model.safetensors" not in brought.target.named("PretrainedTokenizer").inputs
    assert tree(brought.model) == tree(bring_in(folders / "qwen2", tmp_path / "v").model)


def test_an_output_matrix_that_is_stored_though_it_is_tied(qwen: Path, tmp_path: Path) -> None:
    def double(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    rewrite(qwen, double)
    brought = bring_in(qwen, tmp_path / "w")
    assert "lm_head.weight" not in load_file(brought.model / "model.safetensors")
    report = json.loads((brought.model / "pretrained.json").read_text())
    left_out = ["lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    assert report["tensors_left_out"] == left_out
    rewrite(qwen, lambda tensors: tensors["lm_head.weight"].add_(1))
    with pytest.raises(ToolError, match=r"`tie_word_embeddings` is true, and .* differ"):
        bring_in(qwen, tmp_path / "v")


def test_keys_that_transformers_ignores_are_named(qwen: Path, tmp_path: Path) -> None:
    change(qwen / "config.json", use_mrope=False, logit_scale=3.0)
    brought = bring_in(qwen, tmp_path / "w")
    assert "logit_scale" not in json.loads((brought.model / "config.json").read_text())
    report = json.loads((brought.model / "pretrained.json").read_text())
    assert report["config_keys_ignored"] == ["logit_scale", "use_mrope"]
    gguf(brought.model, tmp_path / "m.gguf")


def drop(name: str) -> Callable[[Path], object]:
    return lambda folder: rewrite(folder, lambda tensors: tensors.pop(name))


def rename(edit: Callable[[str], str]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        tensors = {edit(name): each for name, each in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors")

    return spoil


def add(name: str, tensor: torch.Tensor) -> Callable[[Path], object]:
    return lambda folder: rewrite(folder, lambda tensors: tensors.update({name: tensor}))


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def end_in_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50])


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def config(**keys: Any) -> Callable[[Path], object]:
    return lambda folder: change(folder / "config.json", **keys)


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop(NORM), "the model lacks `model.norm.weight`"),
        (add("model.extra", torch.ones(2)), "holds `model.extra`, of which its architecture knows nothing"),
        (add(NORM, torch.ones(3)), r"`model.norm.weight` is \[3\], and by its config.json .* \[32\]"),
        (add(NORM, torch.ones(32, dtype=torch.float64)), "stored as F64, which is no type of weights"),
        (rename(lambda name: name.removeprefix("model.")), "knows nothing"),
        (add("model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(2)), "knows nothing"),
        (cut_short, "header speaks of .*: it was cut short"),
        (end_in_header, "ends inside of its header"),
        (
            write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
            "not a safetensors file",
        ),
        (write("config.json", "{"), "`config.json` is not JSON"),
        (config(auto_map={"AutoConfig": "a.B"}), "code of its own"),
        (config(quantization_config={"quant_method": "gptq"}), "quantized already, with `gptq`"),
        (config(model_type="gpt2"), '`model_type` is "gpt2" there and "qwen2" here'),
        (config(rope_theta=5.0, rope_parameters=None), "`rope_parameters` is .*5.0.* there and .*1000000.0"),
        (config(hidden_act="gelu"), '`hidden_act` is "gelu" there and "silu" here'),
        (config(num_hidden_layers=3, layer_types=None), "`num_hidden_layers` is 3 there and 2 here"),
        (
            write("generation_config.json", '{"do_sample": false, "temperature": 0.5}'),
            "`generation_config.json` contradicts itself: `temperature`",
        ),
    ],
)
def test_what_is_wrong_is_said(qwen: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    architecture = json.loads((qwen / "config.json").read_text())
    spoil(qwen)
    with pytest.raises(ToolError, match=message):
        bring_in(qwen, tmp_path / "w", architecture=architecture)


def test_what_is_to_be_written_is_shown(qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        bring_in(
            qwen, tmp_path / "w", architecture={"model_type": "qwen2", "hidden_size": 32, "num_atention": 1}
        )
    assert "`intermediate_size` is 64 there and 22016 here" in caught.value.message
    assert "`num_atention` is no key of `qwen2`" in caught.value.message
    assert caught.value.hint is not None
    pasted = caught.value.hint[caught.value.hint.index("{") : caught.value.hint.rindex("}") + 1]
    shown = json.loads(pasted.replace("True", "true").replace(",\n    }", "\n    }"))
    assert tree(bring_in(qwen, tmp_path / "a", architecture=shown).model) == tree(
        bring_in(qwen, tmp_path / "b").model
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda map_: map_.pop(NORM), f"`{NORM}` is stored, and .* does not name it"),
        (lambda map_: map_.update(more="model-00009-of-00009.safetensors"), "which is not among the files"),
        (lambda map_: map_.update(more=map_[NORM]), "says that `more` is in .*, and it is not"),
    ],
)
def test_an_index_that_is_wrong_about_its_files(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = save(tmp_path / "cut", "qwen2", shard="20KB")
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    spoil(index["weight_map"])
    file.write_text(json.dumps(index))
    with pytest.raises(ToolError, match=message):
        bring_in(folder, tmp_path / "w")
