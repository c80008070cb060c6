"""The functions of the query language. Each takes and gives ordered sets of labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from modelbuild.errors import UsageError
from modelbuild.label import Label
from modelbuild.query.graph import Node, QueryGraph

Labels = dict[Label, None]
"""An ordered set."""

Parameter = Literal["expression", "word", "number"]


@dataclass(frozen=True, slots=True)
class Function:
    """One function: the kinds of its parameters, how many are required, and what it does."""

    parameters: tuple[Parameter, ...]
    required: int
    call: Callable[..., Labels]

    def usage(self, name: str) -> str:
        """`deps(expression, number?)`."""
        words = [p if i < self.required else f"{p}?" for i, p in enumerate(self.parameters)]
        return f"{name}({', '.join(words)})"


def deps(graph: QueryGraph, start: Labels, depth: int | None = None) -> Labels:
    """`start` and all it depends on, at most `depth` edges away."""
    return _reach(graph, start, depth, reverse=False)


def rdeps(graph: QueryGraph, universe: Labels, start: Labels, depth: int | None = None) -> Labels:
    """What depends on `start` within all that `universe` depends on."""
    inside = deps(graph, universe)
    within = {label: None for label in start if label in inside}
    return _reach(graph, within, depth, reverse=True, inside=inside)


def allrdeps(graph: QueryGraph, start: Labels, depth: int | None = None) -> Labels:
    """What depends on `start` in all that is loaded."""
    return _reach(graph, start, depth, reverse=True)


def same_pkg_direct_rdeps(graph: QueryGraph, start: Labels) -> Labels:
    """What depends directly on `start` in the same package."""
    return {
        user: None
        for label in start
        for user in graph.edges.predecessors(label)
        if (user.repository, user.package) == (label.repository, label.package)
    }


def allpaths(graph: QueryGraph, start: Labels, end: Labels) -> Labels:
    """All that lies on a path from `start` to `end`."""
    return rdeps(graph, start, end)


def somepath(graph: QueryGraph, start: Labels, end: Labels) -> Labels:
    """The targets of one shortest path from `start` to `end`, in order; empty when there is none."""
    import networkx as nx  # noqa: PLC0415

    for first in start:
        paths = nx.single_source_shortest_path(graph.edges, first)
        reached = [paths[last] for last in end if last in paths]
        if reached:
            # networkx gives each path as a list, whatever its stubs say.
            return dict.fromkeys(min(reached, key=len))  # type: ignore[arg-type]
    return {}


def kind(graph: QueryGraph, pattern: str, labels: Labels) -> Labels:
    """Those whose kind (`quantize rule`, `source file`) holds a match of `pattern`."""
    regex = _regex("kind", pattern)
    return _keep(graph, labels, lambda node: regex.search(node.kind) is not None)


def attr(graph: QueryGraph, name: str, pattern: str, labels: Labels) -> Labels:
    """Those whose attribute `name`, written as text, holds a match of `pattern`."""
    regex = _regex("attr", pattern)

    def wanted(node: Node) -> bool:
        return name in node.attributes and regex.search(attribute_text(node.attributes[name])) is not None

    return _keep(graph, labels, wanted)


def filter_(_graph: QueryGraph, pattern: str, labels: Labels) -> Labels:
    """Those whose label holds a match of `pattern`."""
    regex = _regex("filter", pattern)
    return {label: None for label in labels if regex.search(str(label))}


def labels_(graph: QueryGraph, name: str, start: Labels) -> Labels:
    """The labels in attribute `name` of rules in `start`."""
    return {
        label: None
        for owner in start
        for label in _labels_in(graph.nodes[owner].attributes.get(name))
        if label in graph.nodes
    }


def tests(graph: QueryGraph, start: Labels) -> Labels:
    """Test rules in `start`; a test_suite stands for its tests."""
    found: Labels = {}
    seen: set[Label] = set()
    queue = list(start)
    for label in queue:
        if label in seen:
            continue
        seen.add(label)
        node = graph.nodes[label]
        if node.kind == "test_suite rule":
            named = list(_labels_in(node.attributes.get("tests")))
            queue += [x for x in named or node.dependencies if x in graph.nodes]
        elif node.is_test:
            found[label] = None
    return found


def siblings(graph: QueryGraph, start: Labels) -> Labels:
    """All targets and files of the packages of `start`."""
    return dict.fromkeys(graph.siblings((label.repository, label.package) for label in start))


def buildfiles(graph: QueryGraph, start: Labels) -> Labels:
    """The BUILD files of the packages of `start`, and the files they load."""
    packages = dict.fromkeys(label.package for label in start)
    return {file: None for package in packages for file in graph.build_files.get(package, ())}


def some(_graph: QueryGraph, start: Labels, count: int = 1) -> Labels:
    """`count` of `start`, whichever come first."""
    return dict.fromkeys(list(start)[:count])


FUNCTIONS: dict[str, Function] = {
    "allpaths": Function(("expression", "expression"), 2, allpaths),
    "allrdeps": Function(("expression", "number"), 1, allrdeps),
    "attr": Function(("word", "word", "expression"), 3, attr),
    "buildfiles": Function(("expression",), 1, buildfiles),
    "deps": Function(("expression", "number"), 1, deps),
    "filter": Function(("word", "expression"), 2, filter_),
    "kind": Function(("word", "expression"), 2, kind),
    "labels": Function(("word", "expression"), 2, labels_),
    "rdeps": Function(("expression", "expression", "number"), 2, rdeps),
    "same_pkg_direct_rdeps": Function(("expression",), 1, same_pkg_direct_rdeps),
    "siblings": Function(("expression",), 1, siblings),
    "some": Function(("expression", "number"), 1, some),
    "somepath": Function(("expression", "expression"), 2, somepath),
    "tests": Function(("expression",), 1, tests),
}


def attribute_text(value: Any) -> str:
    """An attribute as Bazel writes it for `attr`: `[a, b]`, `1` for True, labels in full."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(attribute_text(item) for item in value)}]"
    if isinstance(value, dict):
        rows = (f"{attribute_text(k)}={attribute_text(v)}" for k, v in value.items())
        return "{" + ", ".join(rows) + "}"
    return "" if value is None else str(value)


def _labels_in(value: Any) -> Iterable[Label]:
    if isinstance(value, Label):
        yield value
    elif isinstance(value, dict):
        yield from _labels_in([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _labels_in(item)


def _keep(graph: QueryGraph, labels: Labels, wanted: Callable[[Node], bool]) -> Labels:
    return {label: None for label in labels if wanted(graph.nodes[label])}


def _regex(function: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"`{pattern}` in `{function}(...)` is no regular expression", notes=(str(error),)
        ) from error


def _reach(
    graph: QueryGraph,
    start: Labels,
    depth: int | None,
    *,
    reverse: bool,
    inside: Labels | None = None,
) -> Labels:
    """Breadth first from `start`, along or against the edges."""
    edges = graph.edges
    step = edges.predecessors if reverse else edges.successors
    found: Labels = dict(start)
    layer = list(start)
    distance = 0
    while layer and (depth is None or distance < depth):
        following: Labels = {
            label: None
            for origin in layer
            for label in step(origin)
            if label not in found and (inside is None or label in inside)
        }
        found |= following
        layer = list(following)
        distance += 1
    return found
