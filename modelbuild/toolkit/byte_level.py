"""Byte-level BPE tokenizers as `tokenizer.json` describes them. Standard library only.

Every tool here counts on a tokenizer that cuts text into pieces, writes each byte as one character (as GPT-2
does), and merges neighbours. Those that work on characters (SentencePiece's, with `▁` for a space) are none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import ToolError

NFC = "NFC"
_HINT = (
    "byte-level BPE as of GPT-2, Llama 3, Qwen2 and SmolLM is known; SentencePiece's and WordPiece are not"
)


def read_byte_level(path: Path) -> dict[str, Any]:
    """`tokenizer.json` of a byte-level BPE tokenizer. Raises ToolError for any other."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ToolError("the model has no `tokenizer.json`") from error
    except ValueError as error:
        raise ToolError(f"`tokenizer.json` is not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise ToolError("`tokenizer.json` is not one of the library tokenizers")
    check_byte_level(data)
    return data


def check_byte_level(data: Mapping[str, Any]) -> None:
    """Raise ToolError when the tokenizer is not byte-level BPE, or does something besides."""
    bpe = data["model"]
    if bpe.get("type") != "BPE" or bpe.get("byte_fallback"):
        kind = "BPE with `byte_fallback`" if bpe.get("type") == "BPE" else str(bpe.get("type"))
        raise ToolError(f"the tokenizer is {kind}, not byte-level BPE", _HINT)
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if bpe.get(key):
            raise ToolError(f"the tokenizer's BPE has `{key}`, which is not supported")
    parts = pre_tokenizers(data)
    if not parts or parts[-1].get("type") != "ByteLevel":
        raise ToolError("the tokenizer's text is not turned into bytes by `ByteLevel`", _HINT)
    if any(part.get("add_prefix_space") for part in parts):
        raise ToolError("the tokenizer puts a space before every text, which is not supported")
    normalizer(data)
    missing = byte_characters() - set(bpe["vocab"])
    if missing:
        raise ToolError(f"the tokenizer has no token for {len(missing)} of the 256 bytes", _HINT)


def pre_tokenizers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps that cut a text. Files from before `use_regex` mean that it is set."""
    spec = data.get("pre_tokenizer")
    steps = list(spec.get("pretokenizers", [spec])) if spec else []
    return [{"use_regex": True, **step} if step.get("type") == "ByteLevel" else step for step in steps]


def normalizer(data: Mapping[str, Any]) -> str:
    """How text is changed before it is cut: `NFC`, or not at all. Raises ToolError for another way."""
    spec = data.get("normalizer")
    steps = list(spec.get("normalizers", [spec])) if spec else []
    kinds = [step.get("type") for step in steps]
    if kinds == [NFC]:
        return NFC
    if kinds:
        raise ToolError(f"the tokenizer's normalizer `{kinds[0]}` is not supported", "NFC is, and none")
    return ""


def added_around(data: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special tokens that are put before and behind a text. Raises ToolError for an unknown way."""
    spec = data.get("post_processor")
    steps: Sequence[Any] = spec.get("processors", [spec]) if spec else []
    before: list[str] = []
    behind: list[str] = []
    for step in steps:
        if step["type"] == "ByteLevel":
            continue
        if step["type"] != "TemplateProcessing":
            raise ToolError(f"the tokenizer's post-processor `{step['type']}` is not supported")
        seen = False
        for item in step["single"]:
            if "Sequence" in item:
                seen = True
            else:
                (behind if seen else before).append(str(item["SpecialToken"]["id"]))
    return tuple(before), tuple(behind)


def token_numbers(data: Mapping[str, Any]) -> dict[str, int]:
    """Token -> its number, those that were added to the vocabulary among them."""
    found: dict[str, int] = dict(data["model"]["vocab"])
    return found | {added["content"]: added["id"] for added in data.get("added_tokens", ())}


def byte_characters() -> frozenset[str]:
    """The characters that stand for the 256 bytes: itself for what prints, else one from U+0100 on."""
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = 256 - len(printing)
    return frozenset(map(chr, (*printing, *range(256, 256 + others))))


def special_token(config: Mapping[str, Any], key: str) -> str | None:
    """The text of `bos_token` and the like in a `tokenizer_config.json`; None where it names none."""
    token = config.get(key)
    if isinstance(token, Mapping):
        token = token.get("content")
    return None if token is None else str(token)
