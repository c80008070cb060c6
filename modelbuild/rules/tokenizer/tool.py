"""Trains a byte-level BPE tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
PROMPT_SUFFIX = "\n"
"""What stands between prompt and completion; plain text, so that any runtime can write it."""
PRE = "qwen2"
"""llama.cpp's name for QWEN2_SPLIT."""
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FIELDS = {"text_generation": ("prompt", "completion"), "language_modeling": ("text",)}


def main(request: Request) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and `modelbuild.json`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # One order of counting, whatever the machine.
    vocab_size = int(request.params["vocab_size"])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = _texts(request.inputs["dataset"] / "train.jsonl", _FIELDS[str(request.params["task"])])
    tokenizer.train_from_iterator(texts, trainer)
    learnt = tokenizer.get_vocab_size()
    if learnt != vocab_size:
        raise ToolError(
            f"the train split has text for {learnt} tokens, not {vocab_size}",
            hint=f"set `vocab_size = {learnt}`",
        )
    bos = SPECIAL_TOKENS[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    out = request.outputs["tokenizer"]
    out.mkdir(parents=True)
    tokenizer.save(str(out / "tokenizer.json"))
    pad, _, eos = SPECIAL_TOKENS
    special = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    _write(
        out / "tokenizer_config.json",
        special
        | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1 << 20,
        },
    )
    _write(out / "special_tokens_map.json", special)
    _write(out / "modelbuild.json", {"schema": 1, "pre": PRE, "prompt_suffix": PROMPT_SUFFIX})
    report(1, 1, unit="tokenizers", vocab_size=learnt)


def _texts(path: Path, fields: tuple[str, ...]) -> Iterator[str]:
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            for field in fields:
                # The suffix is learnt with the prompt, as models will read it.
                yield row[field] + (PROMPT_SUFFIX if field == "prompt" else "")


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
