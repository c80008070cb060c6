"""Causal language models: loading, saving, encoding, batching. Imports torch and transformers.

A sequence is `<bos> prompt suffix completion <eos>` (the suffix, a newline, comes with the tokenizer) and
only the  completion is scored; for `language_modeling` it is `<bos>` and a piece of text, scored throughout.
Batches are padded on the right without a mask: a causal model never looks at what comes after.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import GPTQ, packed_bits, read_dense
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.task import Batch, Examples, Outputs

logging.set_verbosity_error()
logging.disable_progress_bar()

DEFAULT_SEQUENCE_LENGTH = 512
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "modelbuild.json")
"""What of a tokenizer tree is copied into a model tree, as far as it is there."""


class Encoder(Protocol):
    """What turns text into token ids: a Vocabulary, or a runtime with a tokenizer of its own."""

    @property
    def bos(self) -> int:
        """What every sequence starts with."""

    @property
    def eos(self) -> int:
        """What every completion ends with."""

    @property
    def pad(self) -> int:
        """What fills up a batch."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens."""

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """What a model reads before it answers."""

    def byte_length(self, token: int) -> int:
        """Bytes of text that a token stands for; 0 for special tokens."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer and its special tokens.

    prompt_suffix: what stands between a prompt and its completion.
    """

    tokenizer: Tokenizer
    size: int
    bos: int
    eos: int
    pad: int
    prompt_suffix: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens."""
        return [e.ids for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """What a model reads before it answers: `<bos> prompt suffix`."""
        return [[self.bos, *ids] for ids in self.encode([text + self.prompt_suffix for text in texts])]

    def byte_length(self, token: int) -> int:
        """Bytes of text that `token` stands for: of byte-level BPE, where a character writes one byte."""
        if token in (self.bos, self.eos, self.pad):
            return 0
        return len(self.tokenizer.id_to_token(token) or "")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def load_vocabulary(directory: Path) -> Vocabulary:
    """Read the tokenizer of a tokenizer tree or model tree. Raises ToolError when there is none."""
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise ToolError(f"`{directory.name}` holds no `tokenizer.json`")
    tokenizer = Tokenizer.from_file(str(file))
    config = json.loads((directory / "tokenizer_config.json").read_text())

    def token(name: str, default: str | None = None) -> int:
        value = config.get(name)
        text = value["content"] if isinstance(value, dict) else value
        number = tokenizer.token_to_id(text) if text is not None else None
        if number is None and default is not None:
            return token(default)
        if number is None:
            raise ToolError(f"the tokenizer of `{directory.name}` has no `{name}`")
        return int(number)

    extra_file = directory / "modelbuild.json"
    extra = json.loads(extra_file.read_text()) if extra_file.is_file() else {}
    return Vocabulary(
        tokenizer,
        size=tokenizer.get_vocab_size(),
        bos=token("bos_token", "eos_token"),
        eos=token("eos_token"),
        pad=token("pad_token", "eos_token"),
        prompt_suffix=extra.get("prompt_suffix", "\n"),
    )


@dataclass(frozen=True)
class Sequences:
    """Token sequences; sequence i is scored from position `starts[i]` (at least 1) to its end.

    slices: the slice of each, `all` where the row names none.
    """

    ids: list[list[int]]
    starts: list[int]
    slices: list[str]
    pad: int

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence."""
        return [len(ids) for ids in self.ids]

    @property
    def rows(self) -> list[int]:
        """Scored tokens of each sequence."""
        return [len(ids) - start for ids, start in zip(self.ids, self.starts, strict=True)]


def read_rows(dataset: Path, split: str, limit: int = 0) -> list[dict[str, Any]]:
    """The rows of a split, the first `limit` of them unless it is 0."""
    file = dataset / f"{split}.jsonl"
    if not file.is_file():
        raise ToolError(f"`{dataset.name}` has no split `{split}`")
    rows: list[dict[str, Any]] = []
    with open(file, encoding="utf-8") as stream:
        for line in stream:
            rows.append(json.loads(line))
            if limit and len(rows) == limit:
                break
    return rows


def read_sequences(
    dataset: Path, split: str, encoder: Encoder, *, limit: int = 0, sequence_length: int = 0
) -> Sequences:
    """Encode a split, as `LanguageModel.examples` does, with any tokenizer."""
    length = sequence_length or DEFAULT_SEQUENCE_LENGTH
    summary = json.loads((dataset / "dataset.json").read_text())
    if summary["task"] == "language_modeling":
        return _pieces(read_rows(dataset, split), encoder, length, limit)
    return _completions(read_rows(dataset, split, limit), encoder, length, split)


class LanguageModel:
    """The task of causal language models: `text_generation` and `language_modeling`."""

    unit = "tokens"

    def examples(
        self, dataset: Path, split: str, model: Path | None, *, limit: int = 0, sequence_length: int = 0
    ) -> Sequences:
        """Encode a split; rows with `text` are cut into pieces of `sequence_length` tokens.

        limit: of rows with prompts, the first so many rows; of texts, the first so many pieces.
        """
        if model is None:
            raise ToolError("a language model needs a tokenizer")
        return read_sequences(
            dataset, split, load_vocabulary(model), limit=limit, sequence_length=sequence_length
        )

    def create(self, architecture: Mapping[str, Any], tokenizer: Path | None) -> torch.nn.Module:
        """A model of Hugging Face config keys; vocabulary and special tokens are the tokenizer's."""
        keys = dict(architecture)
        _check_keys(keys)
        if tokenizer is not None:
            vocabulary = load_vocabulary(tokenizer)
            keys.setdefault("vocab_size", vocabulary.size)
            keys |= {
                "bos_token_id": vocabulary.bos,
                "eos_token_id": vocabulary.eos,
                "pad_token_id": vocabulary.pad,
            }
            if keys["vocab_size"] < vocabulary.size:
                raise ToolError(f"`vocab_size` {keys['vocab_size']} is less than {vocabulary.size} tokens")
        try:
            config = AutoConfig.for_model(**keys)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        except (ValueError, TypeError, KeyError) as error:
            raise ToolError(f"transformers refuses the architecture: {error}") from error
        assert isinstance(model, torch.nn.Module)
        return model

    def load(self, model: Path) -> torch.nn.Module:
        """Read a model tree; `config.json` and safetensors only.

        Packed weights become floats. compressed-tensors does that inside transformers; AutoGPTQ's format is
        read here, because what transformers needs for it is not part of this environment.
        """
        if not any(model.glob("*.safetensors")):
            raise ToolError(
                f"`{model.name}` holds no safetensors", hint="pickled weights are refused; convert them"
            )
        if (read_config(model).get("quantization_config") or {}).get("quant_method") == GPTQ:
            return _load_gptq(model)
        loaded = AutoModelForCausalLM.from_pretrained(
            str(model), dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        assert isinstance(loaded, torch.nn.Module)
        return loaded.eval()

    def save(self, model: torch.nn.Module, directory: Path, tokenizer: Path | None) -> None:
        """Write `config.json`, `model.safetensors` and the tokenizer's files."""
        directory.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(str(directory))  # type: ignore[operator] # a PreTrainedModel
        if tokenizer is not None:
            copy_tokenizer(tokenizer, directory)

    def batch(self, examples: Examples, indices: Sequence[int]) -> Batch:
        """Pad sequences on the right: `input_ids` (B, T)."""
        assert isinstance(examples, Sequences)
        chosen = [examples.ids[i] for i in indices]
        width = max(len(ids) for ids in chosen)
        padded = torch.tensor([ids + [examples.pad] * (width - len(ids)) for ids in chosen])
        scored: list[int] = []
        targets: list[int] = []
        for row, (index, ids) in enumerate(zip(indices, chosen, strict=True)):
            start = examples.starts[index]
            scored.extend(range(row * width + start - 1, row * width + len(ids) - 1))
            targets.extend(ids[start:])
        return Batch({"input_ids": padded}, torch.tensor(scored), torch.tensor(targets), padded.numel())

    def forward(self, model: torch.nn.Module, batch: Batch, *, hidden: bool = False) -> Outputs:
        """Logits at the positions that predict scored tokens."""
        output = model(**batch.inputs, use_cache=False, output_hidden_states=hidden)
        scored = batch.scored
        assert scored is not None

        def rows(values: torch.Tensor) -> torch.Tensor:
            return values.flatten(0, 1).index_select(0, scored)

        layers = tuple(rows(layer) for layer in output.hidden_states) if hidden else ()
        return Outputs(rows(output.logits).float(), layers)


def _load_gptq(model: Path) -> torch.nn.Module:
    keys = read_config(model)
    tensors = read_dense(model, packed_bits(keys))
    del keys["quantization_config"]
    config = AutoConfig.for_model(**keys)
    state = {name: torch.from_numpy(np.array(array, dtype=np.float32)) for name, array in tensors.items()}
    kind: Any = type(AutoModelForCausalLM.from_config(config))
    loaded, facts = kind.from_pretrained(
        None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
    )
    for wrong in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if facts[wrong]:
            raise ToolError(
                f"the weights of `{model.name}` do not fit its config.json: {sorted(facts[wrong])}"
            )
    assert isinstance(loaded, torch.nn.Module)
    return loaded.eval()


def _check_keys(architecture: Mapping[str, Any]) -> None:
    """Refuse a key that the model type does not have: transformers would keep and ignore it."""
    model_type = architecture.get("model_type")
    try:
        config = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ToolError(f"transformers knows no model type `{model_type}`") from error
    known = sorted({*config.to_dict(), *getattr(config, "attribute_map", {})})
    for key in architecture:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise ToolError(
                f"`{key}` is not a key of `{model_type}`",
                hint=f"did you mean `{near[0]}`?" if near else f"its keys are {', '.join(known)}",
            )


def copy_tokenizer(source: Path, destination: Path) -> None:
    """Copy the tokenizer's files from one tree to another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)


def _completions(
    rows: Sequence[Mapping[str, Any]], vocabulary: Encoder, length: int, split: str
) -> Sequences:
    prompts = vocabulary.prompts([row["prompt"] for row in rows])
    completions = vocabulary.encode([row["completion"] for row in rows])
    ids = [p + c + [vocabulary.eos] for p, c in zip(prompts, completions, strict=True)]
    for number, sequence in enumerate(ids, 1):
        if len(sequence) > length:
            raise ToolError(
                f"{split}.jsonl:{number} is {len(sequence)} tokens long, more than {length}",
                hint="set `sequence_length` higher, or leave the row out",
            )
    slices = [str(row.get("slice", "all")) for row in rows]
    return Sequences(ids, [len(p) for p in prompts], slices, vocabulary.pad)


def _pieces(rows: Sequence[Mapping[str, Any]], vocabulary: Encoder, length: int, limit: int) -> Sequences:
    """Texts cut into pieces of at most `length` tokens with `<bos>`; no piece crosses two texts."""
    ids: list[list[int]] = []
    slices: list[str] = []
    for name, piece in _cut(rows, vocabulary, length - 1):
        ids.append([vocabulary.bos, *piece])
        slices.append(name)
        if limit and len(ids) == limit:
            break
    return Sequences(ids, [1] * len(ids), slices, vocabulary.pad)


def _cut(
    rows: Sequence[Mapping[str, Any]], vocabulary: Encoder, length: int
) -> Iterator[tuple[str, list[int]]]:
    for row in rows:
        tokens = [*vocabulary.encode([row["text"]])[0], vocabulary.eos]
        for at in range(0, len(tokens), length):
            yield str(row.get("slice", "all")), tokens[at : at + length]
