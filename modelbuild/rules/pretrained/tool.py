"""Brings in a language model that somebody else trained: checks it, and writes it as other tools read it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import GenerationConfig

from modelbuild.toolkit.byte_level import read_byte_level, special_token, token_numbers
from modelbuild.toolkit.model_tree import copy_tokenizer, write_json
from modelbuild.toolkit.pretrained_config import PretrainedConfig, agreed_config
from modelbuild.toolkit.pretrained_folder import WEIGHTS, ModelFolder
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.safetensors_file import SIZES, TensorEntry, write_file

_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_COMPUTED = ".rotary_emb.inv_freq"
"""Of old checkpoints: transformers computes it, and reads it no more."""
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_GENERATION = "generation_config.json"
_SHOWN = 3


def main(request: Request) -> None:
    """Inputs: `folder` or `files/*`, tokenizer. Outputs: model, a tree.

    Params: architecture; weights, the name and shape of each; dtype, of all.
    """
    params, out = request.params, request.outputs["model"]
    folder = ModelFolder.of(request.inputs)
    config = agreed_config(folder, params["architecture"])
    stored = folder.tensors()
    left_out = _computed(stored) | _tied(stored, config)
    kept = {name: entry for name, entry in stored.items() if name not in left_out}
    _check_names(kept, {name: tuple(shape) for name, shape in params["weights"].items()})
    dtype = _DTYPES[params["dtype"]]
    _check_types(kept, dtype)
    out.mkdir(parents=True)
    tensors = [
        (name, kept[name].shape, _counted(_converted(kept[name], dtype), number, len(kept)))
        for number, name in enumerate(sorted(kept), 1)
    ]
    write_file(out / WEIGHTS, tensors, dtype)
    complete = replace(config, keys={**config.keys, **_token_ids(config, request.inputs["tokenizer"])})
    complete.write(out, params["dtype"], kept, tensors_left_out=sorted(left_out))
    if _GENERATION in folder.files:
        _copy_generation(folder, out)
    copy_tokenizer(request.inputs["tokenizer"], out)


def _computed(stored: Mapping[str, TensorEntry]) -> set[str]:
    return {name for name in stored if name.endswith(_COMPUTED)}


def _tied(stored: Mapping[str, TensorEntry], config: PretrainedConfig) -> set[str]:
    """The output matrix, where it is the embedding and stored nevertheless."""
    if not config.keys.get("tie_word_embeddings") or _OUTPUT not in stored:
        return set()
    output, embedding = stored[_OUTPUT], stored.get(_EMBEDDING)
    if embedding is None or not _equal(output, embedding):
        raise ToolError(
            f"`tie_word_embeddings` is true, and `{_OUTPUT}` and `{_EMBEDDING}` are stored and differ",
            "if they were trained apart, `tie_word_embeddings` is false",
        )
    return {_OUTPUT}


def _equal(one: TensorEntry, other: TensorEntry) -> bool:
    same = (one.dtype, one.shape, one.size) == (other.dtype, other.shape, other.size)
    return same and all(a == b for a, b in zip(one.pieces(), other.pieces(), strict=True))


def _check_names(stored: Mapping[str, TensorEntry], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in stored]
    unknown = sorted(name for name in stored if name not in expected)
    if unknown:
        raise ToolError(
            f"the model holds {_few(unknown)}, of which its architecture knows nothing",
            _hint(unknown, missing),
        )
    if missing:
        raise ToolError(f"the model lacks {_few(missing)}", _hint(unknown, missing))
    for name, shape in expected.items():
        if stored[name].shape != shape:
            raise ToolError(
                f"`{name}` is {list(stored[name].shape)}, and by its config.json it would be {list(shape)}"
            )


def _few(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _hint(unknown: list[str], missing: list[str]) -> str | None:
    if any(".lora_" in name for name in unknown):
        return "it holds an adapter beside the weights: merge it first"
    if any("attention.wq" in name for name in unknown):
        return "these are names of the authors: bring in the folder that was converted to transformers"
    if missing == [_OUTPUT] and not unknown:
        return "if it has none of its own, `tie_word_embeddings` is true"
    if unknown and all(not name.startswith("model.") for name in unknown):
        return "save it with its output matrix: `AutoModelForCausalLM`, not `AutoModel`"
    return None


def _check_types(stored: Mapping[str, TensorEntry], dtype: str) -> None:
    """All are of the type that is written, or can be without rounding."""
    names = {short: long for long, short in _DTYPES.items()}
    for name, entry in stored.items():
        if entry.dtype not in names:
            raise ToolError(f"`{name}` is stored as {entry.dtype}, which is no type of weights here")
        if dtype not in (entry.dtype, "F32"):
            widest = names[entry.dtype] if len({each.dtype for each in stored.values()}) == 1 else "float32"
            raise ToolError(
                f"`{name}` is stored as {names[entry.dtype]}, and as {names[dtype]} it would be rounded",
                f'set `dtype = "{widest}"`',
            )


def _converted(entry: TensorEntry, dtype: str) -> Iterator[bytes]:
    """The bytes of a tensor, halves as floats where floats are asked for."""
    if entry.dtype == dtype:
        return entry.pieces()
    widen: Callable[[bytes], bytes] = _from_bfloat16 if entry.dtype == "BF16" else _from_float16
    return map(widen, entry.pieces(SIZES[entry.dtype]))


def _from_bfloat16(piece: bytes) -> bytes:
    return (np.frombuffer(piece, "<u2").astype("<u4") << 16).tobytes()


def _from_float16(piece: bytes) -> bytes:
    return np.frombuffer(piece, "<f2").astype("<f4").tobytes()


def _counted(pieces: Iterable[bytes], number: int, count: int) -> Iterator[bytes]:
    yield from pieces
    report(number, count, unit="tensors")


def _token_ids(config: PretrainedConfig, tokenizer: Path) -> dict[str, int]:
    """Numbers that config.json leaves out: runtimes would take some default for them, another token.

    What stands in for a BOS that there is not is EOS, as everywhere here.
    """
    numbers = token_numbers(read_byte_level(tokenizer / "tokenizer.json"))
    names = json.loads((tokenizer / "tokenizer_config.json").read_text(encoding="utf-8"))
    eos = str(special_token(names, "eos_token"))
    tokens = {"bos_token_id": special_token(names, "bos_token") or eos, "eos_token_id": eos}
    return {key: numbers[token] for key, token in tokens.items() if config.keys.get(key) is None}


def _copy_generation(folder: ModelFolder, out: Path) -> None:
    """A model whose settings contradict each other cannot be saved by transformers: told now, not then."""
    keys = folder.read_json(_GENERATION)
    try:
        GenerationConfig.from_dict(keys).validate(strict=True)
    except ValueError as error:
        first = next((line for line in str(error).splitlines() if line.startswith("- ")), str(error))
        raise ToolError(
            f"`{_GENERATION}` contradicts itself: {first.removeprefix('- ')}",
            "leave the file out of `srcs`, or set `do_sample` in it",
        ) from error
    write_json(out / _GENERATION, keys)
