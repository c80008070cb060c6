"""Puts together what is known of one artifact on one device, and judges it. Standard library only."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import Request

EMULATED = ("qemu-user",)
"""Runners whose times say nothing of the device."""


def main(request: Request) -> None:
    """Inputs: binary, and where it was run timing and parity. Outputs: report. Params: see the rule.

    verdict: `pass`; `fail`, with what is beyond its bound; `unverified`, with why it was not run.
    """
    params = request.params
    size = _size(request.inputs["binary"])
    report: dict[str, Any] = {
        "schema": 1,
        **{key: params[key] for key in ("artifact", "platform", "format", "runtime", "toolchain", "runner")},
        "size_bytes": size,
        "predicted": params["predicted"],
        "budget": params["budget"],
        "parity": None,
        "latency_ms": None,
        "peak_rss_bytes": None,
    }
    problems = list(_over_size(size, params["budget"]))
    if "parity" in request.inputs:
        parity = json.loads(request.inputs["parity"].read_text())
        timing = json.loads(request.inputs["timing"].read_text())
        report["parity"] = parity
        report["latency_ms"] = _latency(timing["latency_ms"])
        report["peak_rss_bytes"] = timing["peak_rss_bytes"]
        problems += _beyond(parity, params["bounds"])
        limit = params["budget"]["latency_ms"]
        if limit is not None and params["runner"] not in EMULATED and report["latency_ms"]["median"] > limit:
            problems.append(f"a pass takes {report['latency_ms']['median']} ms, and {limit} are allowed")
    if problems:
        report["verdict"], report["reason"] = "fail", "; ".join(problems)
    elif params["not_run"]:
        report["verdict"], report["reason"] = "unverified", params["not_run"]
    else:
        report["verdict"], report["reason"] = "pass", ""
    request.outputs["report"].write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size


def _over_size(size: int, budget: Mapping[str, Any]) -> Iterator[str]:
    if budget["disk"] is not None and size > budget["disk"]:
        yield f"it has {size:,} bytes, and the platform has room for {budget['disk']:,}"


def _beyond(parity: Mapping[str, Any], bounds: Mapping[str, Any]) -> Iterator[str]:
    for metric, (side, limit) in bounds.items():
        value = parity.get(metric)
        if not isinstance(value, int | float) or not math.isfinite(value):
            yield f"{metric} is not a number"
        elif value < limit if side == "at_least" else value > limit:
            words = "below" if side == "at_least" else "above"
            yield f"{metric} is {value:.4g}, {words} {limit:.4g}"


def _latency(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    last = len(ordered) - 1
    return {
        "median": round(statistics.median(ordered), 3),
        "p95": round(ordered[min(last, math.ceil(0.95 * len(ordered)) - 1)], 3),
        "runs": len(ordered),
    }
