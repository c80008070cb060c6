"""A workspace with toolchains of this repository, a small language model and its probes, for the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from modelbuild.execution.host_program import find_program
from tests.command_line import CommandLine
from tests.toolchains.workshop import ROOT

EMULATED = pytest.mark.skipif(
    find_program("qemu-aarch64-static") is None or find_program("apt-get") is None,
    reason="needs Debian's apt and `apt-get install --no-install-recommends qemu-user-static`",
)
GENERATOR = """
def generate(args, seed):
    number = seed
    for split, count in args.items():
        for _ in range(count):
            number += 1
            yield split, {"prompt": f"climb to {number} m", "completion": f"{number}", "slice": "all"}
"""
MODEL = """
dataset(name = "data", generator = "data.py", args = {"train": 64, "calibration": 40, "eval": 8})

tokenizer(name = "tokenizer", dataset = ":data", vocab_size = 264)

train(
    name = "model",
    architecture = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    },
    batch_size = 8,
    dataset = ":data",
    sequence_length = 32,
    steps = 5,
    tokenizer = ":tokenizer",
)

probes(name = "probes", dataset = ":data", length = 32, rows = 3, tokenizer = ":tokenizer")
"""


def small_workspace(folder: Path, *toolchains: str, build: str, generator: str = GENERATOR) -> CommandLine:
    """A new workspace below `folder`. toolchains: folders below `toolchains/`. build: its BUILD file."""
    root = folder / "workspace"
    root.mkdir()
    made = CommandLine(root)
    registered = ", ".join(f'"//toolchains/{name}:all"' for name in toolchains)
    made.put("modelbuild.toml", f"[build]\ntoolchains = [{registered}]\n")
    made.put("toolchains/BUILD.models", (ROOT / "toolchains/BUILD.models").read_text())
    hidden = shutil.ignore_patterns("__pycache__")
    for name in toolchains:
        shutil.copytree(ROOT / "toolchains" / name, root / "toolchains" / name, ignore=hidden)
    made.put("data.py", generator)
    made.put("BUILD.models", build)
    return made
