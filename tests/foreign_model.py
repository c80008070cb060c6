"""Tiny models as other people hand them out: made and saved by transformers, with tokenizers of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from modelbuild.artifact import Artifact
from modelbuild.provider import ModelInfo
from modelbuild.rules.pretrained.rule import Pretrained
from modelbuild.testing import ActionRunner, RuleRunner, RuleTarget
from tests.tiny_text import rows

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
TOKENS = 300
ROWS = 320
"""Of the embedding: more than there are tokens, as in many models."""
SIZES: dict[str, Any] = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
CHAT = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}"
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 500000.0, "rms_norm_eps": 1e-5},
    "qwen2": {"rope_theta": 1000000.0, "tie_word_embeddings": True, "use_sliding_window": False},
    "qwen3": {"head_dim": 16, "rope_theta": 1000000.0},
    "mistral": {"sliding_window": None, "head_dim": 16},
}


def texts() -> Iterable[str]:
    for row in rows(40):
        yield from (row["prompt"], row["completion"], "The 1234 naïve cafés don't.\n\n  x = 5")


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """NFC, digits one by one, no BOS, chat tokens, as Qwen2.5's."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = _cut(QWEN2)
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    _train(made, TOKENS - len(special))
    made.add_special_tokens(special)
    made.add_tokens(["<tool_call>"])
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT
    )


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Digits in threes, pieces taken whole, a BOS before each text, no padding, as Llama 3's."""
    made = Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = _cut(LLAMA3)
    made.decoder = decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    _train(made, TOKENS - len(special))
    made.add_special_tokens(special)
    template = processors.TemplateProcessing(
        single=f"{special[0]} $A", special_tokens=[(special[0], made.token_to_id(special[0]))]
    )
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=special[0], eos_token=special[1])


def save(
    directory: Path,
    family: str,
    *,
    dtype: torch.dtype = torch.float32,
    shard: str = "50GB",
    **keys: Any,
) -> Path:
    """A model with random weights and its tokenizer, as `save_pretrained` writes both."""
    tokenizer = llama3_tokenizer() if family == "llama" else qwen_tokenizer()
    ids = {
        name: tokenizer.convert_tokens_to_ids(token) if token else None
        for name, token in (("bos_token_id", tokenizer.bos_token), ("eos_token_id", tokenizer.eos_token))
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **ids, **FAMILIES[family], **keys})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                parameter.uniform_(0.5, 1.5)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    tokenizer.save_pretrained(directory)
    return directory


@dataclass(frozen=True)
class Brought:
    """What the rule `pretrained` made of a folder."""

    info: ModelInfo
    target: RuleTarget
    model: Path
    tokenizer: Path


def bring_in(
    folder: Path, directory: Path, files: dict[Artifact, Path] | None = None, **attributes: Any
) -> Brought:
    """Run what `pretrained` declares for a folder; by default its architecture is all of config.json."""
    runner, known = RuleRunner(), files if files is not None else {}
    labels = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        labels.append(f":qwen/{path.relative_to(folder)}")
        known[runner.source(labels[-1])] = path
    if "architecture" not in attributes:
        attributes["architecture"] = json.loads((folder / "config.json").read_text())
    target = runner.analyze(Pretrained, srcs=labels, **attributes)
    directory.mkdir(exist_ok=True)
    ActionRunner(directory, known).run(target)
    info = target.get(ModelInfo)
    tokenizer = known[info.tokenizer.directory] if info.tokenizer else directory
    return Brought(info, target, known[info.weights], tokenizer)


def _cut(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _train(tokenizer: Tokenizer, size: int) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
