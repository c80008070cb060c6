"""Handwritten digits that people wrote on forms: 1,797 images of 8 x 8 pixels, 17 levels of ink.

They ship inside scikit-learn (E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998; CC BY 4.0), so nothing is downloaded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from sklearn.datasets import load_digits

_LEVELS = 16.0


def generate(args: dict[str, Any], seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (split, row). args: how many images of *each digit* `calibration` and `eval` have; the rest is
    `train`. No image, and no second copy of it, is in two splits.
    """
    rng = random.Random(seed)  # noqa: S311 - data, not secrets
    digits = load_digits()
    by_label: dict[int, list[list[list[float]]]] = {label: [] for label in range(10)}
    seen: set[bytes] = set()
    for image, label in zip(digits.images, digits.target.tolist(), strict=True):
        if image.tobytes() not in seen:  # A second copy of a picture must not straddle two splits.
            seen.add(image.tobytes())
            by_label[label].append((image / _LEVELS).tolist())
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "calibration": [], "eval": []}
    for label, images in by_label.items():
        rng.shuffle(images)
        held_out, calibration = args["eval"], args["eval"] + args["calibration"]
        for split, chosen in (
            ("eval", images[:held_out]),
            ("calibration", images[held_out:calibration]),
            ("train", images[calibration:]),
        ):
            rows[split] += [{"pixels": pixels, "label": label, "slice": "all"} for pixels in chosen]
    for split, members in rows.items():
        rng.shuffle(members)
        for row in members:
            yield split, row
