"""A Hugging Face byte-level BPE tokenizer as the keys that llama.cpp reads. Standard library only.

llama.cpp knows a pre-tokenizer by name (`tokenizer.ggml.pre`) and not by its rules, so only those whose
splitting is known to be the same are accepted; any other is an error and never a near miss.
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
    """What `tokenizer.ggml.*` says. bos, eos, pad: token numbers, None where the tokenizer has none."""

    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    bos: int | None
    eos: int | None
    pad: int | None


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
    numbers = {token: number for number, token in tokens.items()}
    return GgufTokenizer(
        pre=_pre_tokenizer(data.get("pre_tokenizer")),
        tokens=tuple(tokens.get(i, f"[PAD{i}]") for i in range(vocab_size)),
        types=tuple(types.get(i, UNUSED) for i in range(vocab_size)),
        merges=tuple(m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]),
        bos=_special(config, "bos_token", numbers),
        eos=_special(config, "eos_token", numbers),
        pad=_special(config, "pad_token", numbers),
    )


def _special(config: dict[str, Any], key: str, numbers: dict[str, int]) -> int | None:
    token = config.get(key)
    if isinstance(token, dict):
        token = token.get("content")
    return None if token is None else numbers[token]


def _pre_tokenizer(spec: dict[str, Any] | None) -> str:
    parts = spec.get("pretokenizers", [spec]) if spec else []
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    seen = [{k: v for k, v in part.items() if k != "trim_offsets"} for part in parts]
    if seen == [byte_level]:
        return "gpt-2"
    if seen == [{"type": "Digits", "individual_digits": True}, byte_level]:
        return "smollm"
    raise ToolError(
        "llama.cpp has no pre-tokenizer that splits as this tokenizer does",
        "use `ByteLevel`, or `Digits(individual_digits=True)` followed by `ByteLevel`, without a prefix space",
    )
