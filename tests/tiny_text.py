"""A text dataset, its tokenizer and models small enough to train in a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import Request, load_tool

RULES = Path(__file__).resolve().parents[1] / "modelbuild/rules"
VOCAB_SIZE = 280
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}
TRAINING = {
    "architecture": ARCHITECTURE,
    "steps": 6,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "schedule": "cosine",
    "warmup": 2,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "sequence_length": 64,
    "seed": 5,
}
WORDS = ("climb", "hold", "land", "turn", "orbit", "photo", "return", "speed")


def call(
    tool: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    scratch: Path | None = None,
) -> None:
    """Run a tool in this process, on one thread."""
    load_tool(RULES / tool).main(Request(params, inputs, outputs, scratch=scratch, threads=1))


def rows(count: int, first: int = 0) -> list[dict[str, str]]:
    """Sentences and their JSON; `first` makes another split."""
    made = []
    for n in range(first, first + count):
        word = WORDS[n % len(WORDS)]
        answer = json.dumps([{"op": word, "value": n}], separators=(",", ":"))
        prompt = f"{word} {'then ' * (n % 3)}to {n} m"
        made.append({"prompt": prompt, "completion": answer, "slice": "odd" if n % 2 else "even"})
    return made


def write_dataset(directory: Path, task: str = "text_generation") -> Path:
    """A dataset tree of 24 training, 8 calibration and 8 eval rows."""
    directory.mkdir(parents=True)
    for split, count, first in (("train", 24, 0), ("calibration", 8, 40), ("eval", 8, 60)):
        made: list[Any] = rows(count, first)
        if task == "language_modeling":
            made = [{"text": row["prompt"] + "\n" + row["completion"], "file": "a.py"} for row in made]
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    (directory / "dataset.json").write_text(json.dumps({"schema": 1, "task": task}))
    return directory


def write_tokenizer(dataset: Path, directory: Path, task: str = "text_generation") -> Path:
    """A tokenizer tree, trained by the rule's own tool."""
    params = {"vocab_size": VOCAB_SIZE, "task": task}
    call("tokenizer/tool.py", params, {"dataset": dataset}, {"tokenizer": directory})
    return directory


def train(text: Path, out: Path, scratch: Path | None = None, **changed: Any) -> Path:
    """Train on `text`, a directory with `dataset` and `tokenizer`; the model tree at `out`."""
    inputs = {"dataset": text / "dataset", "tokenizer": text / "tokenizer"}
    call("train/tool.py", {**TRAINING, **changed}, inputs, {"model": out}, scratch)
    return out


def tree(directory: Path) -> dict[str, bytes]:
    """Every file of a tree."""
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()
    }
