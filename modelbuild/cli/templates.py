"""The files that `modelbuild init` writes."""

from __future__ import annotations

_SETTINGS = """\
# This file marks the root of a modelbuild workspace.
# Settings of every build; flags of the command line go before them.
[build]
cache_dir = "cache"

# Settings of `modelbuild build --config ci`.
[profile.ci]
keep_going = true
"""
_IGNORE = """\
/modelbuild-out
/cache
"""

_GREETING_BUILD = """\
# Targets are declared here; `modelbuild help rule` lists the rules.

genrule(
    name = "greeting",
    srcs = ["name.txt"],
    outs = ["greeting.txt"],
    cmd = "echo Hello, $$(cat $<) > $@",
)

genrule(
    name = "shout",
    srcs = [":greeting"],
    outs = ["shout.txt"],
    cmd = "tr a-z A-Z < $< > $@",
)
"""
_GREETING_README = """\
# A modelbuild workspace

    modelbuild build //...          # builds everything; outputs are in modelbuild-out/
    modelbuild build //...          # again: nothing to do
    modelbuild explain //:shout     # why it last ran
    modelbuild query 'deps(//:shout)'
"""

_MODEL_BUILD = """\
# A model from data to device binary. `modelbuild help rule train` explains a rule.

dataset(
    name = "colours",
    generator = "colours.py",
    args = {"train": 2000, "calibration": 64, "eval": 100},
    seed = 7,
)

tokenizer(
    name = "tokenizer",
    dataset = ":colours",
    vocab_size = 288,
)

train(
    name = "model",
    dataset = ":colours",
    tokenizer = ":tokenizer",
    steps = 120,
    batch_size = 32,
    architecture = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 192,
    },
)

gguf(
    name = "binary",
    model = ":model",
    type = "Q8_0",
)
"""
_MODEL_GENERATOR = '''\
"""Sentences that mix drops of colours, and the colour that comes out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

MIXED = {
    ("blue", "red"): "purple",
    ("blue", "yellow"): "green",
    ("red", "yellow"): "orange",
    ("black", "white"): "grey",
}
VERBS = ("mix", "blend", "stir", "combine")


def generate(args: dict[str, Any], seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(split, row) pairs; `args` says how many of each split. No sentence is in two splits."""
    source = random.Random(seed)
    seen: set[str] = set()
    for split, count in args.items():
        made = 0
        while made < count:
            pair = source.choice(list(MIXED))
            first, second = source.sample(pair, 2)
            drops = source.randint(2, 40), source.randint(2, 40)
            prompt = f"{source.choice(VERBS)} {drops[0]} drops of {first} with {drops[1]} of {second}"
            if prompt not in seen:
                seen.add(prompt)
                made += 1
                yield split, {"prompt": prompt, "completion": MIXED[pair]}
'''
_TOOLCHAINS = """\
# What `device_binary` asks for. Toolchains of this type are packages here, or installed ones; `toolchains` in
# modelbuild.toml registers them.

toolchain_type(
    name = "runtime",
    visibility = ["//visibility:public"],
)
"""
_MODEL_README = """\
# A modelbuild workspace with a small model

    modelbuild build //:binary      # data, tokenizer, training, GGUF: about a minute
    modelbuild build //:binary      # again: nothing to do
    modelbuild run //:binary -- "mix 3 drops of blue with 7 of red"
    modelbuild explain //:model     # why it last ran

The tools need torch, transformers and gguf: `pip install 'modelbuild[models]'`.
"""

TEMPLATES: dict[str, dict[str, str]] = {
    "minimal": {
        "modelbuild.toml": _SETTINGS,
        ".gitignore": _IGNORE,
        "BUILD.models": _GREETING_BUILD,
        "name.txt": "modelbuild\n",
        "README.md": _GREETING_README,
    },
    "model": {
        "modelbuild.toml": _SETTINGS,
        ".gitignore": _IGNORE,
        "BUILD.models": _MODEL_BUILD,
        "colours.py": _MODEL_GENERATOR,
        "toolchains/BUILD.models": _TOOLCHAINS,
        "README.md": _MODEL_README,
    },
}
"""Template -> file -> content."""

FIRST_TARGET = {"minimal": "//...", "model": "//:binary"}
"""What to build first."""
