"""QueryGraph: the targets and files that a query can talk about, and the edges between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelbuild.errors import Location
from modelbuild.label import Label

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True)
class Node:
    """A rule target, a source file or a generated file.

    kind: `quantize rule`, `source file`, `generated file`, as Bazel's `kind` function sees it.
    attributes: name -> value; labels are Label objects. written: names of those that the BUILD file gives.
    """

    label: Label
    kind: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    written: frozenset[str] = frozenset()
    location: Location | None = None
    is_test: bool = False
    dependencies: tuple[Label, ...] = ()

    @property
    def is_rule(self) -> bool:
        """Whether a rule made it, rather than it being a file."""
        return self.kind.endswith(" rule")


class QueryGraph:
    """Everything that was loaded for a query.

    match: target pattern -> labels, in the order of the pattern; raises LoadError for one that leads nowhere.
    build_files: package -> labels of its BUILD file and of what that loads.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        match: Callable[[str], Iterable[Label]],
        build_files: Mapping[str, Iterable[Label]] | None = None,
    ) -> None:
        declared = {node.label: node for node in nodes}
        self.match = match
        self.build_files = build_files or {}
        loaded = {label for files in self.build_files.values() for label in files}
        self.nodes = declared | {x: Node(x, "source file") for x in sorted(loaded - declared.keys())}
        self._declared = declared
        self._edges: nx.DiGraph[Label] | None = None

    @property
    def edges(self) -> nx.DiGraph[Label]:
        """Target -> what it depends on, as a networkx graph; made when first asked for."""
        if self._edges is None:
            import networkx as nx  # noqa: PLC0415  # 144 ms

            edges: nx.DiGraph[Label] = nx.DiGraph()
            edges.add_nodes_from(self.nodes)
            edges.add_edges_from(
                (label, dependency)
                for label, node in self.nodes.items()
                for dependency in node.dependencies
                if dependency in self.nodes
            )
            self._edges = edges
        return self._edges

    def siblings(self, packages: Iterable[tuple[str, str]]) -> list[Label]:
        """All that some packages declare, each (repository, name); not the .bzl files they load."""
        wanted = set(packages)
        return [label for label in self._declared if (label.repository, label.package) in wanted]
