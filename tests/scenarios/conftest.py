"""Workspaces for scenarios."""

from pathlib import Path

import pytest

from tests.command_line import CHAIN, CommandLine


@pytest.fixture
def workspace(tmp_path: Path) -> CommandLine:
    """An empty workspace."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "modelbuild.toml").write_text("")
    return CommandLine(root)


@pytest.fixture
def chain(workspace: CommandLine) -> CommandLine:
    """A workspace with three actions in a chain, of which the second cuts off early."""
    workspace.put("BUILD.models", CHAIN)
    workspace.put("in.txt", "hello\n")
    workspace.put("title.txt", "title\n")
    return workspace
