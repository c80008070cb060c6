"""llama.cpp's splitting is compared where it shows: every pair of bytes is a token, so that each boundary matters."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from modelbuild.rules.tokenizer.tool import QWEN2_SPLIT
from modelbuild.toolkit.gguf_tokenizer import read_tokenizer
from modelbuild.toolkit.gguf_vocabulary import write_vocabulary
from modelbuild.toolkit.llama_cpp import LlamaVocabulary
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call

GGUF = Path(__file__).resolve().parents[3] / "toolchains/gguf"
PROBES = GGUF / "probes.jsonl"
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
NEWER_THAN_TOKENIZERS = "a𐗀b 1𐗁2"
"""Letters of Unicode 16, which llama.cpp knows and the crate `tokenizers` does not yet."""
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
WHOLE = ("Ġthe", "return", "123")


def sensitive(directory: Path, pre: Any, **bpe: Any) -> int:
    """A tokenizer tree whose merges are all pairs of bytes, in any order; its number of tokens.

    Besides there are tokens that no merge makes: words that are taken whole, or never.
    """
    pairs = [(a, b) for a in BYTES for b in BYTES]
    random.Random(0).shuffle(pairs)
    tokens = [*BYTES, *(a + b for a, b in pairs), *WHOLE]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs, **bpe))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>", "<bos>", "<pad>"])
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"bos_token": "<bos>", "eos_token": "<eos>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return int(tokenizer.get_vocab_size())


def verdict(tokenizer: Path, size: int, probes: Path, **inputs: Path) -> dict[str, Any]:
    out = tokenizer / "verdict.json"
    given = {"tokenizer": tokenizer, "probes": probes, **inputs}
    call(str(GGUF / "tokenizer_parity_tool.py"), {"vocab_size": size}, given, {"verdict": out})
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def byte_level(**changed: bool) -> Any:
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **changed})


def split(pattern: str) -> Any:
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([cut, byte_level(use_regex=False)])


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "qwen2", "llama-bpe", "smaug-bpe"])
def test_every_boundary_of_every_probe_is_the_same(tmp_path: Path, name: str) -> None:
    pre = {
        "gpt-2": byte_level(),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]),
        "qwen2": split(QWEN2_SPLIT),
        "llama-bpe": split(LLAMA3_SPLIT),
        "smaug-bpe": split(LLAMA3_SPLIT),
    }[name]
    size = sensitive(tmp_path / "t", pre, ignore_merges=name == "llama-bpe")
    assert read_tokenizer(tmp_path / "t", size).pre == name
    lines = PROBES.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) > 200
    older = tmp_path / "older.jsonl"
    older.write_text("".join(line for line in lines if json.loads(line) != NEWER_THAN_TOKENIZERS))
    assert verdict(tmp_path / "t", size, older) == {
        "passed": True,
        "summary": f"{len(lines) - 1} texts tokenize alike",
        "texts": len(lines) - 1,
    }
    found = verdict(tmp_path / "t", size, PROBES)
    assert not found["passed"]
    assert found["summary"].startswith(f"{NEWER_THAN_TOKENIZERS!r} (control tokens read): llama.cpp [")


def test_the_tokenizer_of_models_here_passes(text: Path) -> None:
    tokenizer = json.loads((text / "tokenizer/tokenizer.json").read_text())
    size = len(tokenizer["model"]["vocab"])
    assert verdict(text / "tokenizer", size, PROBES)["passed"]


def test_another_splitting_is_told_with_the_text_and_both_lists(tmp_path: Path) -> None:
    """A file made for one tokenizer is judged by another one that splits digits otherwise."""
    size = sensitive(tmp_path / "one", byte_level())
    sensitive(
        tmp_path / "other",
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]),
    )
    write_vocabulary(tmp_path / "one.gguf", tmp_path / "one", size)
    probes = tmp_path / "p.jsonl"
    probes.write_text('"abc"\n"x 12345"\n')
    found = verdict(tmp_path / "other", size, probes, binary=tmp_path / "one.gguf")
    assert not found["passed"]
    assert "'x 12345'" in found["summary"]
    assert found["summary"].count("[") == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [("", "no texts"), ("{}\n", "p.jsonl:1 is not a JSON string"), ('"a"\nb\n', "p.jsonl:2 is not JSON")],
)
def test_a_corpus_that_tests_nothing_is_refused(text: Path, tmp_path: Path, lines: str, message: str) -> None:
    probes = tmp_path / "p.jsonl"
    probes.write_text(lines)
    with pytest.raises(ToolError, match=message):
        verdict(text / "tokenizer", 280, probes)


def test_a_word_that_is_a_token_is_taken_whole_where_the_tokenizer_does_so(tmp_path: Path) -> None:
    found = []
    for name, whole in (("llama-bpe", True), ("smaug-bpe", False)):
        size = sensitive(tmp_path / name, split(LLAMA3_SPLIT), ignore_merges=whole)
        write_vocabulary(tmp_path / f"{name}.gguf", tmp_path / name, size)
        with LlamaVocabulary(tmp_path / f"{name}.gguf") as vocabulary:
            found.append(len(vocabulary.tokenize("x the")))
    assert found == [2, 3]


def test_text_is_normalized_where_the_tokenizer_does_so(tmp_path: Path) -> None:
    size = sensitive(tmp_path / "t", split(QWEN2_SPLIT))
    file = tmp_path / "t/tokenizer.json"
    data = json.loads(file.read_text()) | {"normalizer": {"type": "NFC"}}
    file.write_text(json.dumps(data))
    probes = tmp_path / "p.jsonl"
    probes.write_text('"cafe\\u0301 \\u1100\\u1161"\n')
    assert verdict(tmp_path / "t", size, probes)["passed"]
    write_vocabulary(tmp_path / "t.gguf", tmp_path / "t", size)
    with LlamaVocabulary(tmp_path / "t.gguf") as ours:
        for text in ("cafe\u0301 \u1100\u1161", "caf\u00e9 \uac00", "plain"):
            assert ours.tokenize(text) == Tokenizer.from_file(str(file)).encode(text).ids
