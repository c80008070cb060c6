"""Model trees: `config.json`, safetensors weights, tokenizer files. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import ToolError

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
"""Suffixes of files that can run code when they are read."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modelbuild.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "generation_config.json",
)
"""Files that a changed model takes over from its parent as they are."""


def weight_files(model: Path) -> list[Path]:
    """The safetensors files of `model`, sorted. Raises ToolError for pickles, and when there are none."""
    if not model.is_dir():
        raise ToolError(f"`{model}` is not a model tree", "a model is a folder with `config.json`")
    pickles = sorted(p.name for p in model.rglob("*") if p.suffix.lower() in PICKLES)
    if pickles:
        raise ToolError(
            f"the model holds pickled data: `{'`, `'.join(pickles[:5])}`",
            "convert it to safetensors; a pickle can run any code when it is loaded",
        )
    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise ToolError(f"`{model.name}` holds no safetensors file")
    return files


def weights_size(model: Path) -> int:
    """Bytes of the weights: of the safetensors files of a tree, or of one file such as a GGUF."""
    if model.is_file():
        return model.stat().st_size
    return sum(p.stat().st_size for p in weight_files(model))


def read_config(model: Path) -> dict[str, Any]:
    """`config.json`. Raises ToolError when it is missing or not an object."""
    path = model / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ToolError("the model has no `config.json`") from error
    except ValueError as error:
        raise ToolError(f"the model's `config.json` is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ToolError("the model's `config.json` is not an object")
    return config


def write_json(path: Path, data: object) -> None:
    """Write `data` so that equal values give equal bytes. Raises ValueError for NaN and infinities."""
    path.write_text(json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer files of one model tree into another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            (target / name).write_bytes((source / name).read_bytes())
