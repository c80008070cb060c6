"""Tokenizers of other people: what is kept, what is set right, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from modelbuild.toolkit.language_model import load_vocabulary
from modelbuild.toolkit.request import ToolError
from tests.foreign_model import ROWS, llama3_tokenizer, qwen_tokenizer
from tests.tiny_text import call

PARAMS = {"vocab_size": ROWS, "prompt_suffix": "\n"}


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    qwen_tokenizer().save_pretrained(tmp_path / "folder")
    return tmp_path / "folder"


def bring(folder: Path, **params: Any) -> Path:
    out = folder.with_name("out")
    call("pretrained/tokenizer_tool.py", PARAMS | params, {"folder": folder}, {"tokenizer": out})
    return out


def change(file: Path, **keys: Any) -> None:
    data = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(data | keys))


def test_texts_are_never_cut_off(qwen: Path) -> None:
    tokenizer = Tokenizer.from_file(str(qwen / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(qwen / "tokenizer.json"))
    made = Tokenizer.from_file(str(bring(qwen) / "tokenizer.json"))
    assert len(made.encode("one two three four five six").ids) > 9


def test_special_tokens_and_templates_are_in_one_place(qwen: Path) -> None:
    out = bring(qwen, prompt_suffix="<|im_end|>\n<|im_start|>assistant\n")
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert config["chat_template"] == (qwen / "chat_template.jinja").read_text()
    assert (config["bos_token"], config["eos_token"]) == (None, "<|im_end|>")
    assert json.loads((out / "modelbuild.json").read_text())["pre"] == "qwen2"
    vocabulary = load_vocabulary(out)
    assert vocabulary.bos == vocabulary.eos  # It has no BOS.
    tokens = vocabulary.prompts(["hi"])[0]
    names = [vocabulary.tokenizer.id_to_token(token) for token in tokens]
    assert names[0] == "<|im_end|>"
    assert names.index("<|im_start|>") == names.index("<|im_end|>", 1) + 2


@pytest.mark.parametrize("source", ["special_tokens_map.json", "config.json"])
def test_special_tokens_are_found_where_older_files_have_them(qwen: Path, source: str) -> None:
    change(qwen / "tokenizer_config.json", eos_token=None, pad_token=None)
    eos = {"eos_token": {"content": "<|im_end|>"}} if source.startswith("special") else {"eos_token_id": 299}
    change(qwen / source, **eos)
    assert load_vocabulary(bring(qwen)).eos == 299


def test_a_tokenizer_that_llama_cpp_does_not_know_is_brought_in(qwen: Path) -> None:
    """There will be no GGUF file of it; everything else works."""
    data = json.loads((qwen / "tokenizer.json").read_text())
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\W+"
    (qwen / "tokenizer.json").write_text(json.dumps(data))
    assert json.loads((bring(qwen) / "modelbuild.json").read_text())["pre"] is None


def spoilt(**keys: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "tokenizer.json", **keys)


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")


SENTENCE_PIECE = {"type": "BPE", "byte_fallback": True, "vocab": {"▁a": 0}, "merges": []}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_tokenizer, "no `tokenizer.json`, only `tokenizer.model`"),
        (spoilt(model=SENTENCE_PIECE), "BPE with `byte_fallback`, not byte-level"),
        (spoilt(model={"type": "Unigram", "vocab": []}), "is Unigram, not byte-level"),
        (spoilt(normalizer={"type": "NFKC"}), "normalizer `NFKC`"),
        (spoilt(post_processor={"type": "RobertaProcessing"}), "post-processor `RobertaProcessing`"),
        (lambda f: change(f / "tokenizer_config.json", auto_map={"AutoTokenizer": "x.Y"}), "code of its own"),
        (lambda f: change(f / "tokenizer_config.json", eos_token="<none>"), "has no token `<none>`"),
        (
            lambda f: change(
                f / "tokenizer_config.json", added_tokens_decoder={"9": {"content": "<|im_end|>"}}
            ),
            r"`<\|im_end\|>` is token 9 by tokenizer_config.json, and by tokenizer.json it is not",
        ),
        (lambda f: change(f / "tokenizer_config.json", eos_token=None), "has no `eos_token`"),
    ],
)
def test_what_cannot_be_used_is_refused(qwen: Path, spoil: Any, message: str) -> None:
    spoil(qwen)
    with pytest.raises(ToolError, match=message):
        bring(qwen)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    llama3_tokenizer().save_pretrained(tmp_path / "folder")
    with pytest.raises(ToolError, match="has token 299, and the model 280 rows"):
        bring(tmp_path / "folder", vocab_size=280)
