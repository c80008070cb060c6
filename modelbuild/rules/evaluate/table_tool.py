"""Sets the measurements of a pipeline's steps in one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from modelbuild.toolkit.request import Request

_SHARES = ("exact_match", "valid_json", "accuracy")
_OTHERS = ("bits_per_byte", "kl_divergence", "top1_agreement")
_TITLES = {
    "exact_match": "exact match",
    "valid_json": "valid JSON",
    "accuracy": "accuracy",
    "bits_per_byte": "bits a byte",
    "kl_divergence": "KL to parent",
    "top1_agreement": "same top token",
}


def main(request: Request) -> None:
    """Inputs: metrics/0, metrics/1, ... Outputs: markdown, json. Params: steps, the names."""
    names = [str(name) for name in request.params["steps"]]
    measured = [json.loads(request.inputs[f"metrics/{index}"].read_text()) for index in range(len(names))]
    columns = _columns(measured)
    titles = ["step", "format", "bytes", *(_title(column) for column in columns)]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    before: dict[tuple[str, str], float] = {}
    for name, metrics in zip(names, measured, strict=True):
        subject = metrics["subject"]
        cells = [name, subject["format"], f"{subject['bytes']:,}"]
        for column in columns:
            value = metrics["slices"].get(column[0], {}).get(column[1])
            cells.append(_cell(column[1], value, before.get(column)))
            if value is not None:
                before[column] = value
        lines.append("| " + " | ".join(cells) + " |")
    request.outputs["markdown"].write_text("\n".join(lines) + "\n")
    steps = [{"step": name, **metrics} for name, metrics in zip(names, measured, strict=True)]
    request.outputs["json"].write_text(
        json.dumps({"schema": 1, "steps": steps}, indent=1, sort_keys=True) + "\n"
    )


def _columns(measured: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(slice, metric): rates by slice, the rest over all."""
    slices = sorted({name for metrics in measured for name in metrics["slices"]} - {"all"})
    if len(slices) < 2:
        slices = ["all"]
    known = {(s, m) for metrics in measured for s, values in metrics["slices"].items() for m in values}
    wanted = [(s, "exact_match") for s in slices] + [(s, "accuracy") for s in slices]
    wanted += [("all", "valid_json"), *(("all", metric) for metric in _OTHERS)]
    return [column for column in wanted if column in known]


def _title(column: tuple[str, str]) -> str:
    title = _TITLES[column[1]]
    return title if column[0] == "all" else f"{title}, {column[0]}"


def _cell(metric: str, value: float | None, before: float | None) -> str:
    """The number, and how it differs from the step before: points for shares, percent for bits."""
    if value is None:
        return ""
    if metric in _SHARES:
        change = "" if before is None else f" ({(value - before) * 100:+.1f})"
        return f"{value * 100:.1f} %{change}"
    if metric == "bits_per_byte" and before:
        return f"{value:.4f} ({(value / before - 1) * 100:+.1f} %)"
    return f"{value * 100:.1f} %" if metric == "top1_agreement" else f"{value:.4f}"
