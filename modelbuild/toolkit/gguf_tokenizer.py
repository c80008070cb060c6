"""A Hugging Face byte-level BPE tokenizer as the keys that llama.cpp reads. Standard library only.

llama.cpp knows a pre-tokenizer by name (`tokenizer.ggml.pre`) and not by its rules, so only those whose
splitting is known to be the same are accepted; any other is an error and never a near miss. Characters newer
than Unicode 15, which llama.cpp knows and other tokenizers may not, are for `tokenizer_parity_test` to find.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import ToolError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's token types."""


@dataclass(frozen=True)
class GgufTokenizer:
    """What `tokenizer.ggml.*` says. bos, eos, pad: token numbers, None where the tokenizer has none.
    prompt_suffix: the text between a prompt and its completion.
    """

    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    bos: int | None
    eos: int | None
    pad: int | None
    prompt_suffix: str


def read_tokenizer(model: Path, vocab_size: int) -> GgufTokenizer:
    """Read `tokenizer.json` of a model tree; numbers up to `vocab_size` that have no token become unused.

    Raises ToolError for a tokenizer that llama.cpp would not tokenize alike.
    """
    path = model / "tokenizer.json"
    if not path.is_file():
        raise ToolError("the model has no `tokenizer.json`", "a GGUF file carries its tokenizer")
    data = json.loads(path.read_text())
    bpe = data["model"]
    if bpe.get("type") != "BPE" or bpe.get("byte_fallback") or bpe.get("ignore_merges"):
        raise ToolError(f"a tokenizer of type {bpe.get('type')} is not supported", "use byte-level BPE")
    if data.get("normalizer") is not None:
        raise ToolError("a tokenizer with a normalizer is not supported", "llama.cpp would not apply it")
    tokens = {number: token for token, number in bpe["vocab"].items()}
    types = dict.fromkeys(tokens, NORMAL)
    for added in data.get("added_tokens", ()):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(tokens) >= vocab_size:
        raise ToolError(f"the tokenizer has token {max(tokens)}, the model only {vocab_size} rows")
    config = json.loads((model / "tokenizer_config.json").read_text())
    extra = model / "modelbuild.json"
    numbers = {token: number for number, token in tokens.items()}
    return GgufTokenizer(
        pre=_pre_tokenizer(data.get("pre_tokenizer")),
        tokens=tuple(tokens.get(i, f"[PAD{i}]") for i in range(vocab_size)),
        types=tuple(types.get(i, UNUSED) for i in range(vocab_size)),
        merges=tuple(m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]),
        bos=_special(config, "bos_token", numbers),
        eos=_special(config, "eos_token", numbers),
        pad=_special(config, "pad_token", numbers),
        prompt_suffix=json.loads(extra.read_text())["prompt_suffix"] if extra.is_file() else "\n",
    )


def _special(config: dict[str, Any], key: str, numbers: dict[str, int]) -> int | None:
    token = config.get(key)
    if isinstance(token, dict):
        token = token.get("content")
    return None if token is None else numbers[token]


_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}
_SPLIT = {"type": "Split", "pattern": {"Regex": _QWEN2}, "behavior": "Isolated", "invert": False}
_PRE_TOKENIZERS: tuple[tuple[list[dict[str, Any]], str], ...] = (
    ([_BYTE_LEVEL], "gpt-2"),
    ([_DIGITS, _BYTE_LEVEL], "smollm"),
    ([_SPLIT, _BYTES_ONLY], "qwen2"),
)
"""What `tokenizer.json` says -> llama.cpp's name for it."""


def _pre_tokenizer(spec: dict[str, Any] | None) -> str:
    parts = spec.get("pretokenizers", [spec]) if spec else []
    seen = [{k: v for k, v in part.items() if k != "trim_offsets"} for part in parts]
    for known, name in _PRE_TOKENIZERS:
        if seen == known:
            return name
    raise ToolError(
        "llama.cpp has no pre-tokenizer that splits as this tokenizer does",
        "use `ByteLevel` without a prefix space, `Digits` before it, or the pattern of Qwen2",
    )
