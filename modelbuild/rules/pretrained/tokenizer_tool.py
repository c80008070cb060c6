"""Brings in the tokenizer of a model that somebody else trained. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelbuild.toolkit.byte_level import added_around, read_byte_level, special_token, token_numbers
from modelbuild.toolkit.gguf_tokenizer import pre_name
from modelbuild.toolkit.pretrained_folder import ModelFolder
from modelbuild.toolkit.request import Request, ToolError

_CONFIG, _TOKENIZER, _SPECIAL = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"
_TEMPLATE = "chat_template.jinja"
_SLOW = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")


def main(request: Request) -> None:
    """Inputs: `folder` or `files/*`. Outputs: tokenizer, a tree. Params: vocab_size, prompt_suffix.

    What is written is what is read, but that texts are never cut off or filled up, that the special tokens
    are named in one place, and that a chat template lies in `tokenizer_config.json`.
    """
    folder, out = ModelFolder.of(request.inputs), request.outputs["tokenizer"]
    if _TOKENIZER not in folder.files:
        slow = [name for name in _SLOW if name in folder.files]
        raise ToolError(
            f"the model has no `{_TOKENIZER}`" + (f", only `{slow[0]}`" if slow else ""),
            "`AutoTokenizer.from_pretrained(...).save_pretrained(...)` writes one",
        )
    data = read_byte_level(folder.files[_TOKENIZER])
    added_around(data)
    numbers = token_numbers(data)
    most = int(request.params["vocab_size"])
    if max(numbers.values()) >= most:
        raise ToolError(f"the tokenizer has token {max(numbers.values())}, and the model {most} rows")
    config = _config(folder, numbers)
    out.mkdir(parents=True)
    # transformers sets both anew for every text; a tokenizer that is read by itself would obey them.
    _write(out / _TOKENIZER, data | {"truncation": None, "padding": None})
    _write(out / _CONFIG, config)
    if _SPECIAL in folder.files:
        _write(out / _SPECIAL, folder.read_json(_SPECIAL))
    suffix = request.params["prompt_suffix"]
    _write(out / "modelbuild.json", {"schema": 1, "pre": _llama_cpp_name(data), "prompt_suffix": suffix})


def _config(folder: ModelFolder, numbers: Mapping[str, int]) -> dict[str, Any]:
    config = folder.read_json(_CONFIG) if _CONFIG in folder.files else {}
    if "auto_map" in config:
        raise ToolError(f"the tokenizer needs code of its own (`auto_map` in {_CONFIG}), which is not run")
    for number, added in config.get("added_tokens_decoder", {}).items():
        if numbers.get(added["content"]) != int(number):
            raise ToolError(
                f"`{added['content']}` is token {number} by {_CONFIG}, and by {_TOKENIZER} it is not",
                "load the tokenizer with transformers and save it anew: `save_pretrained`",
            )
    special = folder.read_json(_SPECIAL) if _SPECIAL in folder.files else {}
    model = folder.read_json("config.json") if "config.json" in folder.files else {}
    names = {number: token for token, number in numbers.items()}
    for key in ("bos_token", "eos_token", "pad_token"):
        token = special_token(config, key) or special_token(special, key)
        number = model.get(f"{key}_id")
        if token is None and isinstance(number, int):
            token = names.get(number)
        if token is not None and token not in numbers:
            raise ToolError(f"the tokenizer has no token `{token}`, which is its `{key}`")
        config[key] = token
    if config["eos_token"] is None:
        raise ToolError("the tokenizer has no `eos_token`", f"say in {_CONFIG} which token ends a text")
    if _TEMPLATE in folder.files:
        config["chat_template"] = folder.files[_TEMPLATE].read_text(encoding="utf-8")
    return config


def _llama_cpp_name(data: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for how text is cut; without one there is no GGUF file, and all the rest works."""
    try:
        return pre_name(data)
    except ToolError:
        return None


def _write(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
