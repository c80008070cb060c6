"""Every format for one device, as docs/guides/sizes.md shows it: what was predicted, and what came out.

    python -m benchmarks.formats

Builds //targets:formats on the workspace's cache and writes benchmarks/results/formats.json. What is not in the cache
is made first: the example models, and the environments of eight toolchains.
"""

from __future__ import annotations

import json

from benchmarks.collect import CACHE
from benchmarks.matrix import matrix
from benchmarks.readme import RESULTS

TARGET = "//targets:formats"


def main() -> None:
    """Measure and write."""
    document, _ = matrix(TARGET, CACHE)
    (RESULTS / "formats.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
