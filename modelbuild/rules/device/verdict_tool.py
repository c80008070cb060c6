"""Compares what was measured of a device binary with its bounds. Standard library only."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: parity or timing. Outputs: verdict. Params: at_most, at_least: metric -> bound.

    What was not measured, or is no number, fails.
    """
    measured = _measured(request.inputs)
    checks: list[dict[str, Any]] = []
    for sign, bounds in (("<=", request.params["at_most"]), (">=", request.params["at_least"])):
        checks += [_check(name, measured.get(name), sign, bound) for name, bound in sorted(bounds.items())]
    passed = bool(checks) and all(check["passed"] for check in checks)
    verdict = {"passed": passed, "summary": "; ".join(c["text"] for c in checks), "checks": checks}
    text = json.dumps(verdict, indent=1, sort_keys=True, allow_nan=False)
    request.outputs["verdict"].write_text(text + "\n")


def _measured(inputs: Any) -> dict[str, Any]:
    if "timing" in inputs:
        times = _read(inputs["timing"]).get("latency_ms")
        return {"latency_ms": statistics.median(times)} if times else {}
    return _read(inputs["parity"])


def _read(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    assert isinstance(data, dict)
    return data


def _check(name: str, value: Any, sign: str, bound: float) -> dict[str, Any]:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not known:
        return {
            "metric": name,
            "value": None,
            "bound": bound,
            "passed": False,
            "text": f"{name} was not measured",
        }
    passed = value <= bound if sign == "<=" else value >= bound
    text = f"{name} {value:.4g} {sign} {bound:.4g}: {'ok' if passed else 'FAILED'}"
    return {"metric": name, "value": float(value), "bound": bound, "passed": passed, "text": text}
