"""Workspaces in a temporary directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.loading.load import load_graph
from modelbuild.loading.package import TargetGraph
from modelbuild.loading.workspace import open_workspace


class Tree:
    """A workspace that a test writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("modelbuild.toml", "")

    def write(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def load(self, *patterns: str, working_package: str = "", tests_only: bool = False) -> TargetGraph:
        return load_graph(
            open_workspace(str(self.root)),
            patterns,
            working_package=working_package,
            tests_only=tests_only,
        )

    def match(self, *patterns: str, working_package: str = "", tests_only: bool = False) -> list[str]:
        graph = self.load(*patterns, working_package=working_package, tests_only=tests_only)
        return [str(label) for label in graph.requested]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path.resolve())
