"""Compares measured quality with its bounds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from modelbuild.toolkit.request import Request


def main(request: Request) -> None:
    """Inputs: metrics, and baseline where there is one. Outputs: verdict. Params: the bounds."""
    params = request.params
    slices = _read(request.inputs["metrics"])
    checks: list[dict[str, Any]] = []
    for name, bound in sorted(params["at_least"].items()):
        checks.append(_check(name, _value(slices, name), ">=", bound))
    for name, bound in sorted(params["at_most"].items()):
        checks.append(_check(name, _value(slices, name), "<=", bound))
    for name, drop in sorted(params["at_most_drop"].items()):
        reference = _value(_read(request.inputs["baseline"]), name)
        bound = reference - drop if reference is not None else None
        checks.append(_check(name, _value(slices, name), ">=", bound, f", {drop:g} below the baseline"))
    passed = bool(checks) and all(check["passed"] for check in checks)
    verdict = {"passed": passed, "summary": "; ".join(c["text"] for c in checks), "checks": checks}
    request.outputs["verdict"].write_text(json.dumps(verdict, indent=1, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, Any]:
    slices = json.loads(path.read_text())["slices"]
    assert isinstance(slices, dict)
    return slices


def _value(slices: dict[str, Any], name: str) -> float | None:
    part, _, metric = name.partition(".")
    value = slices.get(part, {}).get(metric)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _check(name: str, value: float | None, sign: str, bound: float | None, note: str = "") -> dict[str, Any]:
    if value is None:
        text, passed = f"{name} was not measured", False
    elif bound is None:
        text, passed = f"{name} of the baseline was not measured", False
    else:
        # Sums of decimals are a hair off: 0.93 - 0.03 is less than 0.9.
        passed = value >= bound - 1e-12 if sign == ">=" else value <= bound + 1e-12
        text = f"{name} {value:.4g} {sign} {bound:.4g}{note}: {'ok' if passed else 'FAILED'}"
    return {"metric": name, "value": value, "bound": bound, "passed": passed, "text": text}
