"""llama.cpp's splitting is compared where it shows: every pair of bytes is a token, so that each boundary matters."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from modelbuild.rules.tokenizer.tool import QWEN2_SPLIT
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import call

GGUF = Path(__file__).resolve().parents[3] / "toolchains/gguf"
PROBES = GGUF / "probes.jsonl"
NEWER_THAN_TOKENIZERS = "a𐗀b 1𐗁2"
"""Letters of Unicode 16, which llama.cpp knows and the crate `tokenizers` does not yet."""
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def sensitive(directory: Path, pre: Any) -> int:
    """A tokenizer tree whose merges are all pairs of bytes, in any order; its number of tokens."""
    pairs = [(a, b) for a in BYTES for b in BYTES]
    random.Random(0).shuffle(pairs)
    vocab = {token: number for number, token in enumerate([*BYTES, *(a + b for a, b in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
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


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "qwen2"])
def test_every_boundary_of_every_probe_is_the_same(tmp_path: Path, name: str) -> None:
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated")
    pre = {
        "gpt-2": byte_level(),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]),
        "qwen2": pre_tokenizers.Sequence([split, byte_level(use_regex=False)]),
    }[name]
    size = sensitive(tmp_path / "t", pre)
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
    from modelbuild.toolkit.gguf_vocabulary import write_vocabulary

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
