import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from modelbuild.toolkit.request import ToolError
from tests.tiny_text import VOCAB_SIZE, call, tree, write_tokenizer

PHRASES = [
    "climb to 40 m, then hold\n",
    '[{"op":"hold","value":120}]',
    "  odd   spacing\t\nand\r\n\nlines ",
    "grüße, 3½ µm — 東京 🚁",
    "it's I'LL they'd",
]


@pytest.fixture(scope="module")
def tokenizer(text: Path) -> Any:
    return AutoTokenizer.from_pretrained(text / "tokenizer")


def test_every_text_comes_back(tokenizer: Any) -> None:
    for phrase in PHRASES:
        ids = tokenizer(phrase, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == phrase


def test_digits_are_tokens_of_their_own(tokenizer: Any) -> None:
    tokens = tokenizer.tokenize("hold 1200 s")
    assert [t for t in tokens if any(c.isdigit() for c in t)] == ["1", "2", "0", "0"]


def test_special_tokens(tokenizer: Any) -> None:
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer("hold").input_ids[0] == 1
    assert len(tokenizer) == VOCAB_SIZE


def test_two_runs_give_the_same_bytes(text: Path, tmp_path: Path) -> None:
    again = write_tokenizer(text / "dataset", tmp_path / "again")
    assert tree(again) == tree(text / "tokenizer")


def test_the_tree_names_its_cut_and_prompt_suffix(text: Path) -> None:
    extra = json.loads((text / "tokenizer/modelbuild.json").read_text())
    assert extra == {"schema": 1, "pre": "qwen2", "prompt_suffix": "\n"}


def test_a_vocabulary_that_the_text_cannot_fill_is_refused(text: Path, tmp_path: Path) -> None:
    params = {"vocab_size": 5000, "task": "text_generation"}
    with pytest.raises(ToolError, match="not 5000") as caught:
        call("tokenizer/tool.py", params, {"dataset": text / "dataset"}, {"tokenizer": tmp_path / "out"})
    assert (caught.value.hint or "").startswith("set `vocab_size = ")
