"""A Hugging Face byte-level BPE tokenizer as the keys that llama.cpp reads. Standard library only.

llama.cpp knows a pre-tokenizer by name (`tokenizer.ggml.pre`) and not by its rules, so only those whose
splitting is known to be the same are accepted; any other is an error and never a near miss. Characters newer
than Unicode 15, which llama.cpp knows and other tokenizers may not, are for `tokenizer_parity_test` to find.

llama.cpp applies no normalizer. For a tokenizer with NFC (Qwen's) the file says so, for those here who read
it; other programs give the same tokens for text that is in NFC, as nearly all is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.toolkit.byte_level import (
    added_around,
    normalizer,
    pre_tokenizers,
    read_byte_level,
    special_token,
)
from modelbuild.toolkit.request import ToolError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's token types."""


@dataclass(frozen=True)
class GgufTokenizer:
    """What `tokenizer.ggml.*` says. bos, eos, pad: token numbers; what stands in for a BOS that a tokenizer
    does not have is its EOS, as everywhere here. adds_bos, adds_eos: whether it puts them around a text.
    prompt_suffix: the text between a prompt and its completion. chat_template: its own, or empty.
    """

    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    bos: int
    eos: int
    pad: int | None
    adds_bos: bool
    adds_eos: bool
    normalizer: str
    prompt_suffix: str
    chat_template: str


def read_tokenizer(model: Path, vocab_size: int) -> GgufTokenizer:
    """Read `tokenizer.json` of a model tree; numbers up to `vocab_size` that have no token become unused.

    Raises ToolError for a tokenizer that llama.cpp would not tokenize alike.
    """
    data = read_byte_level(model / "tokenizer.json")
    bpe = data["model"]
    tokens = {number: token for token, number in bpe["vocab"].items()}
    types = dict.fromkeys(tokens, NORMAL)
    for added in data.get("added_tokens", ()):
        for flag in ("lstrip", "rstrip", "single_word"):
            if added.get(flag):
                raise ToolError(f"the token `{added['content']}` has `{flag}`, which llama.cpp does not know")
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(tokens) >= vocab_size:
        raise ToolError(f"the tokenizer has token {max(tokens)}, the model only {vocab_size} rows")
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    extra = model / "modelbuild.json"
    numbers = {token: number for number, token in tokens.items()}
    bos, eos, pad = (
        numbers.get(special_token(config, f"{name}_token") or "") for name in ("bos", "eos", "pad")
    )
    if eos is None:
        raise ToolError("the tokenizer has no `eos_token`", "`tokenizer_config.json` names it")
    before, behind = _around(data, numbers, bos, eos)
    template = config.get("chat_template")
    return GgufTokenizer(
        pre=pre_name(data),
        tokens=tuple(tokens.get(i, f"[PAD{i}]") for i in range(vocab_size)),
        types=tuple(types.get(i, UNUSED) for i in range(vocab_size)),
        merges=tuple(m if isinstance(m, str) else " ".join(m) for m in bpe["merges"]),
        bos=eos if bos is None else bos,
        eos=eos,
        pad=pad,
        adds_bos=before,
        adds_eos=behind,
        normalizer=normalizer(data),
        prompt_suffix=json.loads(extra.read_text())["prompt_suffix"] if extra.is_file() else "\n",
        chat_template=template if isinstance(template, str) else "",
    )


def _around(
    data: Mapping[str, Any], numbers: Mapping[str, int], bos: int | None, eos: int
) -> tuple[bool, bool]:
    """Whether BOS is put before a text, and EOS behind it."""
    before, behind = ([numbers.get(token) for token in part] for part in added_around(data))
    if before not in ([], [bos]) or behind not in ([], [eos]):
        raise ToolError("the tokenizer puts other tokens around a text than BOS and EOS")
    return bool(before), bool(behind)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}
_PRE_TOKENIZERS: tuple[tuple[list[dict[str, Any]], bool, str], ...] = (
    ([_BYTE_LEVEL], False, "gpt-2"),
    ([_DIGITS, _BYTE_LEVEL], False, "smollm"),
    ([_split(_QWEN2), _BYTES_ONLY], False, "qwen2"),
    ([_split(_LLAMA3), _BYTES_ONLY], True, "llama-bpe"),
    ([_split(_LLAMA3), _BYTES_ONLY], False, "smaug-bpe"),
)
"""What `tokenizer.json` says, and whether a piece that is a token is taken whole -> llama.cpp's name."""


def pre_name(data: Mapping[str, Any]) -> str:
    """llama.cpp's name for how a `tokenizer.json` cuts text. Raises ToolError when it has none."""
    seen = [{k: v for k, v in part.items() if k != "trim_offsets"} for part in pre_tokenizers(data)]
    whole = bool(data["model"].get("ignore_merges"))
    for known, ignore_merges, name in _PRE_TOKENIZERS:
        if seen == known and whole == ignore_merges:
            return name
    raise ToolError(
        "llama.cpp has no pre-tokenizer that splits as this tokenizer does",
        "known are those of GPT-2, SmolLM, Qwen2 and Llama 3, to the letter",
    )
