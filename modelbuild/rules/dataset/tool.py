"""Runs a generator script and writes what it yields. Standard library only."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

SCHEMA = 1
_REPORT_EVERY = 500

Generate = Callable[..., Iterable[tuple[str, dict[str, Any]]]]
"""`generate(args, seed)`, or `generate(args, seed, sources)` where the rule has `srcs`."""


def main(request: Request) -> None:
    """Write `<split>.jsonl` for every split and `dataset.json`."""
    params = request.params
    generate = _load(request.inputs["generator.py"])
    out = request.outputs["dataset"]
    out.mkdir(parents=True)
    splits: list[str] = list(params["splits"])
    paths = [request.inputs[f"sources/{index}"] for index in range(params.get("sources", 0))]
    sources = [paths] if paths else []
    slices: dict[str, Counter[str]] = {split: Counter() for split in splits}
    random.seed(params["seed"])  # for a script that forgets to seed a generator of its own
    with ExitStack() as stack:
        streams = {s: stack.enter_context(open(out / f"{s}.jsonl", "w", encoding="utf-8")) for s in splits}
        rows = 0
        try:
            for split, row in generate(dict(params["args"]), int(params["seed"]), *sources):
                line = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
                _stream(streams, split).write(line + "\n")
                slices[split][str(row.get("slice", "all"))] += 1
                rows += 1
                if rows % _REPORT_EVERY == 0:
                    report(rows, max(rows, _expected(params["args"], splits)), unit="rows")
        except ToolError:
            raise
        except Exception as error:
            raise ToolError(f"the generator failed: {_last_frames(error)}") from error
    empty = [split for split in splits if not slices[split]]
    if empty:
        raise ToolError(f"the generator yields no row of split `{empty[0]}`")
    report(rows, rows, unit="rows")
    summary = {
        "schema": SCHEMA,
        "task": params["task"],
        "seed": params["seed"],
        "splits": {
            split: {"rows": sum(counts.values()), "slices": dict(sorted(counts.items()))}
            for split, counts in slices.items()
        },
    }
    (out / "dataset.json").write_text(json.dumps(summary, indent=2) + "\n")


def _stream(streams: Mapping[str, TextIO], split: str) -> TextIO:
    if split not in streams:
        raise ToolError(
            f"the generator yields split `{split}`, which `splits` does not name",
            hint=f"`splits` is {', '.join(streams)}",
        )
    return streams[split]


def _load(path: Path) -> Generate:
    spec = importlib.util.spec_from_file_location("generator", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018 - it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules["generator"] = module  # dataclasses look their module up
    sys.dont_write_bytecode = True
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ToolError(
            f"the generator cannot be imported: {_last_frames(error)}",
            hint="name what it imports beyond the standard library in `packages`"
            if isinstance(error, ImportError)
            else None,
        ) from error
    if not callable(getattr(module, "generate", None)):
        raise ToolError("the generator defines no `generate(args, seed)`")
    generate: Generate = module.generate
    return generate


def _last_frames(error: Exception) -> str:
    """The message of `error` and the lines of the script it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "generator" in Path(f.filename).name]
    places = "".join(f"\n  line {frame.lineno}, in {frame.name}: {frame.line}" for frame in frames[-3:])
    return f"{type(error).__name__}: {error}{places}"


def _expected(args: dict[str, Any], splits: list[str]) -> int:
    """The rows that `args` asks for, if it names splits as ours do; else 0."""
    return sum(value for name in splits if isinstance(value := args.get(name), int))
