"""How the answer of a query is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from modelbuild.label import Label
from modelbuild.query.functions import attribute_text
from modelbuild.query.graph import Node, QueryGraph


def _label(answer: Sequence[Label], _graph: QueryGraph) -> str:
    return "\n".join(map(str, answer))


def _label_kind(answer: Sequence[Label], graph: QueryGraph) -> str:
    return "\n".join(f"{graph.nodes[label].kind} {label}" for label in answer)


def _location(answer: Sequence[Label], graph: QueryGraph) -> str:
    nodes = (graph.nodes[label] for label in answer)
    return "\n".join(f"{node.location or node.label.path}: {node.kind} {node.label}" for node in nodes)


def _package(answer: Sequence[Label], _graph: QueryGraph) -> str:
    return "\n".join(sorted({f"@{x.repository}//{x.package}" if x.repository else x.package for x in answer}))


def _build(answer: Sequence[Label], graph: QueryGraph) -> str:
    return "\n\n".join(_declaration(graph.nodes[x]) for x in answer if graph.nodes[x].is_rule)


def _declaration(node: Node) -> str:
    lines = [f"# {node.location}"] if node.location else []
    lines.append(f"{node.kind.removesuffix(' rule')}(")
    written = {name: value for name, value in node.attributes.items() if name in node.written}
    attributes = {"name": node.label.name, **written}
    lines += [f"    {name} = {_starlark(value)}," for name, value in attributes.items()]
    return "\n".join([*lines, ")"])


def _starlark(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_starlark, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_starlark(k)}: {_starlark(v)}" for k, v in value.items()) + "}"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False)


def _graphviz(answer: Sequence[Label], graph: QueryGraph) -> str:
    """Graphviz, as `bazel query --output graph` writes it."""
    wanted = set(answer)
    lines = ["digraph modelbuild {", "  node [shape=box];"]
    for label in answer:
        lines.append(f'  "{label}"')
        dependencies = sorted({d for d in graph.nodes[label].dependencies if d in wanted})
        lines += [f'  "{label}" -> "{dependency}"' for dependency in dependencies]
    return "\n".join([*lines, "}"])


def _ranks(answer: Sequence[Label], graph: QueryGraph, *, longest: bool) -> str:
    """Distance from the roots of the answer: of the shortest or the longest path."""
    import networkx as nx  # noqa: PLC0415

    part = graph.edges.subgraph(answer)
    ranks: dict[Label, int] = {}
    for label in nx.topological_sort(part):
        above = [ranks[user] + 1 for user in part.predecessors(label)]
        ranks[label] = (max(above) if longest else min(above)) if above else 0
    return "\n".join(f"{rank} {label}" for label, rank in sorted(ranks.items(), key=lambda x: (x[1], x[0])))


def _minrank(answer: Sequence[Label], graph: QueryGraph) -> str:
    return _ranks(answer, graph, longest=False)


def _maxrank(answer: Sequence[Label], graph: QueryGraph) -> str:
    return _ranks(answer, graph, longest=True)


def _json(answer: Sequence[Label], graph: QueryGraph) -> str:
    rows = []
    for label in answer:
        node = graph.nodes[label]
        row: dict[str, Any] = {"label": str(label), "kind": node.kind}
        if node.location is not None:
            row["location"] = str(node.location)
        if node.is_rule:
            row["attributes"] = {name: _plain(value) for name, value in node.attributes.items()}
        row["dependencies"] = sorted({str(d) for d in node.dependencies})
        rows.append(row)
    return json.dumps(rows, indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {attribute_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


FORMATS: dict[str, Callable[[Sequence[Label], QueryGraph], str]] = {
    "label": _label,
    "label_kind": _label_kind,
    "location": _location,
    "package": _package,
    "build": _build,
    "graph": _graphviz,
    "minrank": _minrank,
    "maxrank": _maxrank,
    "json": _json,
}
"""Name of `--output` -> how it is written."""
