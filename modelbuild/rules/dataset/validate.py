"""Checks a dataset: rows well formed, evaluation disjoint from training. Standard library only."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import Request, ToolError

EVALUATION = "eval"
"""The split that no other may overlap."""
_SHOWN = 5
_FIELDS: dict[str, dict[str, type]] = {
    "text_generation": {"prompt": str, "completion": str},
    "language_modeling": {"text": str, "file": str},
    "image_classification": {"pixels": list, "label": int},
}
_IDENTITY = {"text_generation": "prompt", "language_modeling": "text", "image_classification": "pixels"}


def main(request: Request) -> None:
    """Write a report; raise ToolError with the first offenders when the dataset is not sound."""
    directory, task = request.inputs["dataset"], str(request.params["task"])
    splits = sorted(path.stem for path in directory.glob("*.jsonl"))
    problems: list[str] = []
    seen: dict[bytes, str] = {}
    counts: dict[str, int] = {}
    for split in sorted(splits, key=lambda name: name != EVALUATION):
        counts[split] = 0
        for number, row in _rows(directory / f"{split}.jsonl"):
            place = f"{split}.jsonl:{number}"
            counts[split] += 1
            wrong = _malformed(row, task, str(request.params["completion_format"]))
            if wrong:
                problems.append(f"{place}: {wrong}")
                continue
            identity = row[_IDENTITY[task]]
            key = hashlib.sha256(normalise(identity).encode()).digest()
            if split == EVALUATION:
                if key in seen:
                    problems.append(f"{place} repeats {seen[key]}: {_short(identity)}")
                seen.setdefault(key, place)
            elif key in seen:
                problems.append(f"{place} is also {seen[key]}: {_short(identity)}")
    if problems:
        shown = "".join(f"\n  {line}" for line in problems[:_SHOWN])
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ToolError(f"the dataset has {len(problems)} unsound rows{shown}{more}")
    report = {"schema": 1, "sound": True, "rows": counts, "disjoint_from": EVALUATION}
    request.outputs["report"].write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")


def normalise(value: object) -> str:
    """What makes two prompts the same sentence: letters and digits, without case, punctuation, spacing."""
    if not isinstance(value, str):
        return json.dumps(value)
    kept = "".join(" " if c in string.punctuation else c for c in value.casefold())
    return " ".join(kept.split()) or value


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise ToolError(f"{path.name}:{number} is not JSON: {error}") from error


def _malformed(row: Any, task: str, completion_format: str) -> str:
    """Why `row` is no row of `task`, or nothing."""
    if not isinstance(row, dict):
        return "is not an object"
    for name, kind in _FIELDS[task].items():
        value = row.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) or value in ("", []):
            return f"has no {kind.__name__} `{name}`"
    if task == "text_generation" and completion_format == "json":
        try:
            json.loads(row["completion"])
        except ValueError as error:
            return f"completion is no JSON ({error}): {_short(row['completion'])}"
    return ""


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text[:77]}...`" if len(text) > 80 else f"`{text}`"
