"""The pipeline of a build as SVG: targets in columns, by how many others come before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from modelbuild.label import Label, parse_label

_COLUMN, _ROW, _BOX_WIDTH, _BOX_HEIGHT, _MARGIN = 210, 44, 170, 28, 12
_CHARACTERS = 24


def draw_pipeline(edges: Sequence[tuple[str, str]], last: Label) -> str:
    """edges: (maker, reader). last: the target everything leads to; it is the last column."""
    import networkx as nx  # noqa: PLC0415 - heavy, and drawn rarely

    graph = nx.DiGraph(edges)
    if not graph:
        return '<p class="note">One target, which needs no other.</p>'
    if str(last) in graph:
        graph = graph.subgraph(nx.ancestors(graph, str(last)) | {str(last)})
    graph = nx.transitive_reduction(graph)
    columns = [sorted(generation) for generation in nx.topological_generations(graph)]
    places: dict[str, tuple[float, float]] = {}
    for index, column in enumerate(columns):
        # Each target as near as can be to the middle of what it reads: fewer lines cross.
        def middle(label: str) -> float:
            before = [places[each][1] for each in graph.predecessors(label) if each in places]
            return sum(before) / len(before) if before else 0.0

        for row, label in enumerate(sorted(column, key=lambda each: (middle(each), each))):
            places[label] = (_MARGIN + index * _COLUMN, _MARGIN + row * _ROW)
    width = _MARGIN * 2 + (len(columns) - 1) * _COLUMN + _BOX_WIDTH
    height = _MARGIN * 2 + (max(map(len, columns)) - 1) * _ROW + _BOX_HEIGHT
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [f'<svg {size} role="img" aria-label="Pipeline">']
    for maker, reader in graph.edges:
        (x1, y1), (x2, y2) = places[maker], places[reader]
        x1, y1, y2 = x1 + _BOX_WIDTH, y1 + _BOX_HEIGHT / 2, y2 + _BOX_HEIGHT / 2
        bend = (x1 + x2) / 2
        parts.append(f'<path class="edge" d="M{x1},{y1} C{bend},{y1} {bend},{y2} {x2},{y2}"/>')
    often = Counter(parse_label(label).name for label in places)
    for label, (x, y) in places.items():
        parts.append(
            f'<g><title>{escape(label)}</title><rect class="box" x="{x}" y="{y}" width="{_BOX_WIDTH}" '
            f'height="{_BOX_HEIGHT}" rx="5"/>'
            f'<text x="{x + 10}" y="{y + 18}">{escape(_short(label, often))}</text></g>'
        )
    return "\n".join([*parts, "</svg>"])


def lineage(edges: Sequence[tuple[str, str]], artifact: str) -> list[str]:
    """The longest way through the pipeline to `artifact`: what it was made of, first things first."""
    import networkx as nx  # noqa: PLC0415

    graph = nx.DiGraph(edges)
    if artifact not in graph:
        return [artifact]
    ancestors = graph.subgraph(nx.ancestors(graph, artifact) | {artifact})
    path: list[str] = nx.dag_longest_path(ancestors)
    return path


def _short(label: str, often: Mapping[str, int]) -> str:
    """Its name; with the last part of its package where another target is called so, too."""
    known = parse_label(label)
    name = known.name
    if often[name] > 1 and known.package:
        name = f"{known.package.rpartition('/')[2]}:{name}"
    return name if len(name) <= _CHARACTERS else f"{name[: _CHARACTERS - 1]}…"
