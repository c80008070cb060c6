"""The size-quality plot of a matrix, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from modelbuild.byte_size import byte_size
from modelbuild.driver.matrix import MatrixRow

_WIDTH, _HEIGHT = 860, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 180, 16, 48
_CHARACTER, _LINE = 6.5, 13
"""Width and height of a letter of a label, in the font of the page."""
_PLACES = [(side, down) for down in (-6, 17, -20, 31, -34, 45) for side in (8, -8)]
"""Where a label may stand, from the middle of its point: near ones first."""
_COLORS = ("#0b7285", "#c2410c", "#6d28d9", "#15803d", "#be185d", "#a16207")


@dataclass(frozen=True, slots=True)
class Point:
    """size: bytes on disk. quality: top-1 agreement with the teacher, 0 to 1. names: of devices."""

    artifact: str
    format: str
    size: int
    quality: float
    names: tuple[str, ...]


def points(rows: Sequence[MatrixRow]) -> list[Point]:
    """What was run and has a teacher; cells with the same artifact, format and figures are one point."""
    found: dict[tuple[str, str, int, float], list[str]] = {}
    for row in rows:
        quality = (row.report.get("parity") or {}).get("teacher_top1")
        if quality is not None:
            key = (row.cell.artifact_name, row.cell.format, int(row.report["size_bytes"]), float(quality))
            found.setdefault(key, []).append(row.cell.platform_name)
    return [Point(*key, tuple(names)) for key, names in found.items()]


def pareto_front(found: Sequence[Point]) -> list[Point]:
    """Points of which no other is both smaller and better, by size."""
    front: list[Point] = []
    for point in sorted(found, key=lambda each: (each.size, -each.quality)):
        if not front or point.quality > front[-1].quality:
            front.append(point)
    return front


def pareto_plot(rows: Sequence[MatrixRow]) -> str:
    """Size (logarithmic) against agreement with the teacher; one colour for each artifact."""
    found = points(rows)
    if not found:
        return '<p class="note">Nothing was run that has a teacher to compare with.</p>'
    artifacts = list(dict.fromkeys(point.artifact for point in found))
    return "\n".join(_Plot(found, artifacts).lines())


class _Plot:
    def __init__(self, found: list[Point], artifacts: list[str]) -> None:
        self._points = found
        self._artifacts = artifacts
        sizes = [point.size for point in found]
        self._low, self._high = math.log10(min(sizes) * 0.8), math.log10(max(sizes) * 1.25)
        worst = min(point.quality for point in found)
        self._floor = max(0.0, math.floor((worst - 0.005) * 50) / 50)
        around = ((self._x(p.size), self._y(p.quality)) for p in found)
        self._taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in around]

    def lines(self) -> Iterator[str]:
        yield (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
            'aria-label="Size on disk against top-1 agreement with the teacher" style="max-width:100%">'
        )
        yield from self._axes()
        for index, artifact in enumerate(self._artifacts):
            own = [point for point in self._points if point.artifact == artifact]
            yield from self._series(own, _COLORS[index % len(_COLORS)], index)
        yield "</svg>"

    def _x(self, size: float) -> float:
        share = (math.log10(size) - self._low) / (self._high - self._low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, quality: float) -> float:
        share = (quality - self._floor) / (1 - self._floor) if self._floor < 1 else 1.0
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def _axes(self) -> Iterator[str]:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        for step in range(6):
            quality = self._floor + (1 - self._floor) * step / 5
            y = self._y(quality)
            yield f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="dim" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{quality:.1%}</text>'
        for size in self._ticks():
            x = self._x(size)
            yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            yield (
                f'<text class="dim" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">'
                f"{byte_size(size)}</text>"
            )
        middle = (_LEFT + right) / 2
        yield (
            f'<text class="dim" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">size on disk; upward: '
            "top-1 agreement with the teacher</text>"
        )

    def _ticks(self) -> Iterator[int]:
        for power in range(math.floor(self._low), math.ceil(self._high) + 1):
            for digit in (1, 2, 5):
                size = digit * 10**power
                if self._low <= math.log10(size) <= self._high:
                    yield int(size)

    def _series(self, own: Sequence[Point], color: str, index: int) -> Iterator[str]:
        front = pareto_front(own)
        path = " ".join(f"{self._x(p.size):.1f},{self._y(p.quality):.1f}" for p in front)
        if len(front) > 1:
            yield (
                f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5" opacity=".6"/>'
            )
        for point in own:
            words = f"{point.artifact}, {point.format}: {byte_size(point.size)}, {point.quality:.2%}"
            title = escape(f"{words} on {', '.join(point.names)}")
            x, y = self._x(point.size), self._y(point.quality)
            fill = color if point in front else "none"
            yield (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{color}" '
                f'stroke-width="2"><title>{title}</title></circle>'
            )
            yield self._label(x, y, point.format)
        y = _TOP + 18 + 22 * index
        x = _WIDTH - _RIGHT + 24
        yield f'<circle cx="{x}" cy="{y - 4}" r="5" fill="{color}"/>'
        yield f'<text x="{x + 12}" y="{y}">{escape(own[0].artifact)}</text>'

    def _label(self, x: float, y: float, text: str) -> str:
        """Beside its point, where it covers no other point and no other label, if there is such a place."""
        boxes = {}
        for side, down in _PLACES:
            left = x + side - (_CHARACTER * len(text) if side < 0 else 0)
            box = (left, y + down - _LINE + 3, left + _CHARACTER * len(text), y + down + 3)
            inside = box[0] > _LEFT and box[2] < _WIDTH - _RIGHT + 12 and box[1] > 0
            if inside and not any(_overlap(box, other) for other in self._taken):
                boxes[side, down] = box
        side, down = next(iter(boxes), _PLACES[0])
        self._taken += [boxes[side, down]] if boxes else []
        anchor = ' text-anchor="end"' if side < 0 else ""
        return f'<text class="dim" x="{x + side:.1f}" y="{y + down:.1f}"{anchor}>{escape(text)}</text>'


_Box = tuple[float, float, float, float]


def _overlap(one: _Box, other: _Box) -> bool:
    """Boxes are left, top, right, bottom."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
