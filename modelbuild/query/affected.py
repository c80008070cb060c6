"""Which targets a change of files touches. Errs on the side of too many, never of too few."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from modelbuild.label import Label
from modelbuild.loading.source_file import BUILD_FILE
from modelbuild.loading.workspace import WORKSPACE_FILE, Workspace
from modelbuild.query.functions import Labels, allrdeps
from modelbuild.query.graph import QueryGraph


def affected(paths: Iterable[str], graph: QueryGraph, workspace: Workspace) -> list[Label]:
    """The rule targets that changed files can have touched, sorted.

    paths: relative to the workspace root, of files that were changed, added or deleted. graph: of `//...`.
    A source file touches what names it; a BUILD file its package; a .bzl or rule file (or any file beside a
    rule file, such as its tool) the packages that load it; modelbuild.toml everything.
    """
    seeds: Labels = {}
    for path in paths:
        seeds |= dict.fromkeys(_touched(os.path.normpath(path), graph, workspace))
    return sorted(label for label in allrdeps(graph, seeds) if graph.nodes[label].is_rule)


def _touched(path: str, graph: QueryGraph, workspace: Workspace) -> Iterator[Label]:
    if path == WORKSPACE_FILE:
        yield from graph.nodes
        return
    package = _package_of(path, graph)
    for loader, files in graph.build_files.items():
        if any(_comes_from(path, file) for file in files):
            yield from graph.siblings([("", loader)])
    if package is None:
        return
    label = Label("", package, path.removeprefix(f"{package}/") if package else path)
    if label in graph.nodes:
        yield label
    elif not os.path.lexists(os.path.join(workspace.root, path)) or label.name == BUILD_FILE:
        # Deleted: a glob may have named it, and what a glob no longer finds cannot be seen any more.
        yield from graph.siblings([("", package)])


def _comes_from(path: str, file: Label) -> bool:
    if file.repository:
        return False
    beside = file.name.endswith(".py") and os.path.dirname(path) == os.path.dirname(file.path)
    return path == file.path or (beside and path.endswith((".py", ".lock")))


def _package_of(path: str, graph: QueryGraph) -> str | None:
    """The package that a path lies in, or None."""
    folder = os.path.dirname(path)
    while True:
        if folder in graph.build_files:
            return folder
        if not folder:
            return None
        folder = os.path.dirname(folder)
