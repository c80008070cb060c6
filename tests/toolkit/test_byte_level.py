import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from modelbuild.toolkit.byte_level import added_around, byte_characters, check_byte_level, normalizer
from modelbuild.toolkit.gguf_tokenizer import pre_name, read_tokenizer
from modelbuild.toolkit.request import ToolError


@pytest.fixture
def data(text: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((text / "tokenizer/tokenizer.json").read_text())
    return found


def test_the_characters_are_those_of_the_library() -> None:
    assert byte_characters() == set(pre_tokenizers.ByteLevel.alphabet())


def bpe(**changed: Any) -> Any:
    return lambda data: {"model": data["model"] | changed}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bpe(type="WordPiece"), "the tokenizer is WordPiece, not byte-level"),
        (bpe(byte_fallback=True), "is BPE with `byte_fallback`"),
        (bpe(dropout=0.1), "has `dropout`"),
        (bpe(end_of_word_suffix="</w>"), "has `end_of_word_suffix`"),
        (bpe(vocab={"a": 0}), "no token for 255 of the 256 bytes"),
        (lambda _: {"pre_tokenizer": None}, "not turned into bytes"),
        (lambda _: {"pre_tokenizer": {"type": "Metaspace"}}, "not turned into bytes"),
        (
            lambda _: {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
            "puts a space before every text",
        ),
        (lambda _: {"normalizer": {"type": "Lowercase"}}, "normalizer `Lowercase`"),
        (
            lambda _: {
                "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Strip"}]}
            },
            "normalizer `NFC`",
        ),
    ],
)
def test_what_is_not_byte_level_bpe_is_refused(data: dict[str, Any], change: Any, message: str) -> None:
    check_byte_level(data)
    with pytest.raises(ToolError, match=message):
        check_byte_level(data | change(data))


def test_a_file_from_before_use_regex_is_gpt_2(data: dict[str, Any]) -> None:
    old = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    assert pre_name(data | {"pre_tokenizer": old}) == "gpt-2"


def test_an_empty_sequence_normalizes_nothing() -> None:
    assert normalizer({"normalizer": {"type": "Sequence", "normalizers": []}}) == ""
    assert normalizer({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}}) == "NFC"


def template(*single: Any) -> dict[str, Any]:
    steps = [{"Sequence": {"id": "A"}} if each is None else {"SpecialToken": {"id": each}} for each in single]
    return {"type": "TemplateProcessing", "single": steps}


@pytest.mark.parametrize(
    ("processor", "around"),
    [
        (None, ((), ())),
        ({"type": "ByteLevel"}, ((), ())),
        (template("<bos>", None), (("<bos>",), ())),
        (
            {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template("<bos>", None, "<eos>")]},
            (("<bos>",), ("<eos>",)),
        ),
    ],
)
def test_what_is_put_around_a_text(processor: Any, around: Any) -> None:
    assert added_around({"post_processor": processor}) == around


def test_an_unknown_post_processor_is_refused() -> None:
    with pytest.raises(ToolError, match="post-processor `BertProcessing`"):
        added_around({"post_processor": {"type": "BertProcessing"}})


def tree(text: Path, out: Path, change: Any, **config: Any) -> Path:
    out.mkdir()
    data = json.loads((text / "tokenizer/tokenizer.json").read_text())
    change(data)
    (out / "tokenizer.json").write_text(json.dumps(data))
    usual = json.loads((text / "tokenizer/tokenizer_config.json").read_text())
    (out / "tokenizer_config.json").write_text(json.dumps(usual | config))
    return out


def test_a_file_says_what_its_tokenizer_does(text: Path, tmp_path: Path) -> None:
    usual = read_tokenizer(tree(text, tmp_path / "a", lambda _: None), 300)
    assert (usual.bos, usual.eos, usual.pad, usual.adds_bos, usual.adds_eos) == (1, 2, 0, True, False)
    assert (usual.pre, usual.normalizer, usual.chat_template) == ("qwen2", "", "")

    def bare(data: dict[str, Any]) -> None:
        data["post_processor"] = None
        data["normalizer"] = {"type": "NFC"}

    found = read_tokenizer(
        tree(text, tmp_path / "b", bare, bos_token=None, chat_template="{{ messages }}"), 300
    )
    assert (found.bos, found.eos, found.adds_bos) == (2, 2, False)  # As everywhere, EOS stands in for BOS.
    assert (found.normalizer, found.chat_template) == ("NFC", "{{ messages }}")


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        (lambda data: data["added_tokens"][2].update(rstrip=True), {}, "`<eos>` has `rstrip`"),
        (lambda data: data.update(post_processor=template("<pad>", None)), {}, "other tokens around a text"),
        (lambda _: None, {"eos_token": None}, "has no `eos_token`"),
        (lambda data: data["model"].update(ignore_merges=True), {}, "no pre-tokenizer that splits"),
    ],
)
def test_what_llama_cpp_would_tokenize_otherwise_is_refused(
    text: Path, tmp_path: Path, change: Any, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ToolError, match=message):
        read_tokenizer(tree(text, tmp_path / "t", change, **config), 300)
