"""The `config.json` of a model that somebody else trained. Imports transformers.

What counts is what transformers makes of it: old names (`rope_scaling`, `torch_dtype`) become today's, keys
that are left out get their defaults, and keys that a model type does not have are ignored, as transformers
ignores them. The file that is written states every key that its model type has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import logging

from modelbuild.toolkit.config_keys import HARMLESS, WINDOW
from modelbuild.toolkit.model_tree import write_json
from modelbuild.toolkit.pretrained_folder import ModelFolder
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.safetensors_file import TensorEntry

logging.set_verbosity_error()

_OLD_NAMES = frozenset({"rope_theta", "rope_scaling", "partial_rotary_factor", "torch_dtype", "num_labels"})
_UNLISTED = frozenset({"head_dim"})
"""Keys that transformers reads where they are, though not every configuration class lists them."""
_BESIDE = HARMLESS | {
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "encoder_stride", "pooler_act"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "pooler_output_size"),
}
"""Keys that do not change what the model computes: they need not be stated in `architecture`."""


@dataclass(frozen=True)
class PretrainedConfig:
    """A configuration as transformers understands it. keys: all that the model type has. ignored: those of
    the file that it does not have. defaults: of the model type.
    """

    keys: Mapping[str, Any]
    ignored: tuple[str, ...]
    defaults: Mapping[str, Any]

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What decides what the model computes."""
        return _arithmetic(self.keys)

    @property
    def stated(self) -> dict[str, Any]:
        """The least that has to be written down to say the same."""
        usual = _arithmetic(self.defaults)
        differing = {k: v for k, v in self.arithmetic.items() if k not in usual or v != usual[k]}
        return {"model_type": self.keys["model_type"], **differing}

    def write(self, out: Path, dtype: str, stored: Mapping[str, TensorEntry], **done: object) -> None:
        """Write `config.json` of a tree whose weights are of type `dtype`, and where they come from.

        stored: what they were made of. done: what was done to them, for `pretrained.json`.
        """
        write_json(out / "config.json", {**self.keys, "dtype": dtype})
        origin = {
            "schema": 1,
            "dtype": dtype,
            "stored_as": sorted({entry.dtype for entry in stored.values()}),
            "config_keys_ignored": list(self.ignored),
        }
        write_json(out / "pretrained.json", origin | done)


def agreed_config(folder: ModelFolder, architecture: Mapping[str, Any]) -> PretrainedConfig:
    """That of the folder. Raises ToolError where it cannot be understood, or `architecture` is another."""
    config = _understand(folder.config())
    _check_agreement(config, architecture)
    return config


def pasted(keys: Mapping[str, Any]) -> str:
    """The attribute as it is written in a BUILD file."""
    lines = [f"        {json.dumps(key)}: {_shown(value)}," for key, value in keys.items()]
    return "\n".join(("    architecture = {", *lines, "    },"))


def _understand(keys: Mapping[str, Any]) -> PretrainedConfig:
    """What transformers makes of the keys of a `config.json`, or of an `architecture`. Raises ToolError."""
    model_type = keys.get("model_type")
    try:
        usual = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ToolError(f"transformers knows no model type `{model_type}`") from error
    known = {*usual.to_dict(), *usual.attribute_map, *_OLD_NAMES, *_UNLISTED}
    ignored = sorted(set(keys) - known)
    try:
        config = AutoConfig.for_model(**{key: value for key, value in keys.items() if key in known})
        found = json.loads(json.dumps(config.to_diff_dict(), allow_nan=False))
    except (ValueError, TypeError, KeyError) as error:
        raise ToolError(f"transformers refuses the configuration: {error}") from error
    rope = found.get("rope_parameters")
    if isinstance(rope, dict):
        rope.pop("type", None)  # The old name of `rope_type`, which is there as well.
    return PretrainedConfig(found, tuple(ignored), json.loads(json.dumps(usual.to_diff_dict())))


def _check_agreement(file: PretrainedConfig, architecture: Mapping[str, Any]) -> None:
    """Raise ToolError when `architecture` is not that of `config.json`, with what to write instead."""
    here = _understand(architecture)
    theirs, ours = file.arithmetic, here.arithmetic
    keys = sorted({*theirs, *ours}) if theirs["model_type"] == ours["model_type"] else ["model_type"]
    differing = [
        f"`{key}` is {_shown(theirs.get(key))} there and {_shown(ours.get(key))} here"
        for key in keys
        if theirs.get(key) != ours.get(key)
    ]
    unknown = [
        f"`{key}` is no key of `{ours['model_type']}`" for key in here.ignored if key not in file.ignored
    ]
    if differing or unknown:
        raise ToolError(
            "`architecture` is not that of `config.json`: " + "; ".join((*differing, *unknown)),
            "load it from the file (see `modelbuild help rule pretrained`), or write\n" + pasted(file.stated),
        )


def _arithmetic(keys: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in keys.items() if key not in _BESIDE}
    if "layer_types" in found and "sliding_attention" not in found["layer_types"]:
        found = {key: value for key, value in found.items() if key not in WINDOW}
    if keys["model_type"] == "vit":
        found["num_labels"] = len(keys.get("id2label") or ("LABEL_0", "LABEL_1"))
    return found


def _shown(value: object) -> str:
    """A value as Starlark writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return repr(value) if value is None or isinstance(value, bool) else json.dumps(value)
