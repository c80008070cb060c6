"""The tokenizer of a model tree as keys of a GGUF file. Needs gguf."""

from __future__ import annotations

import json
from pathlib import Path

import gguf

from modelbuild.toolkit.gguf_tokenizer import read_tokenizer

NORMALIZER_KEY = "modelbuild.normalizer"
"""Names what is done to a text before llama.cpp cuts it, which does nothing itself."""


def write_vocabulary(path: Path, tokenizer: Path, vocab_size: int) -> None:
    """Write a file with the tokenizer alone, as `vocab_only` of llama.cpp loads it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_vocab_size(vocab_size)
    write_tokenizer(writer, tokenizer, vocab_size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tokenizer(writer: gguf.GGUFWriter, directory: Path, vocab_size: int) -> None:
    """Add the keys `tokenizer.*`. Raises ToolError for a tokenizer that llama.cpp would not apply alike."""
    tokenizer = read_tokenizer(directory, vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    writer.add_token_merges(tokenizer.merges)
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    if tokenizer.pad is not None:
        writer.add_pad_token_id(tokenizer.pad)
    writer.add_add_bos_token(tokenizer.adds_bos)
    writer.add_add_eos_token(tokenizer.adds_eos)
    writer.add_add_space_prefix(False)
    writer.add_string("modelbuild.prompt_suffix", tokenizer.prompt_suffix)
    if tokenizer.normalizer:
        writer.add_string(NORMALIZER_KEY, tokenizer.normalizer)
    suffix = json.dumps(tokenizer.prompt_suffix)
    usual = "{{ bos_token }}{{ messages[-1]['content'] }}{{ " + suffix + " }}"
    writer.add_chat_template(tokenizer.chat_template or usual)
