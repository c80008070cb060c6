"""Every format for one device, as docs/guides/sizes.md shows it: what was predicted, and what came out.

    python -m benchmarks.formats

Builds //targets:formats on the workspace's cache and writes benchmarks/results/formats.json. What is not in the cache
is made first: the example models, and the environments of eight toolchains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.collect import CACHE
from benchmarks.matrix import matrix
from benchmarks.readme import RESULTS

TARGET = "//targets:formats"


def main() -> None:
    """Measure and write."""
    document, _ = matrix(TARGET, CACHE)
    cells = [_shown(cell) for cell in document["cells"]]
    (RESULTS / "formats.json").write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n")


def _shown(cell: Mapping[str, Any]) -> dict[str, Any]:
    """What the guide shows of a cell. Latencies are no part of it: cells were measured side by side."""
    found: dict[str, Any] = {name: cell[name] for name in ("artifact", "format", "verdict", "reason")}
    report = cell["report"]
    if report:
        parity = report["parity"] or {}
        found |= {
            "predicted": report["predicted"]["disk"],
            "size_bytes": report["size_bytes"],
            "top1_agreement": parity.get("top1_agreement"),
            "exact_match": parity.get("exact_match"),
        }
    return found


if __name__ == "__main__":
    main()
