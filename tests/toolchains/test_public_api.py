"""Toolchains are written as a stranger's would be: rules import modelbuild.api, tools import modelbuild.toolkit."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "toolchains").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_toolchain_needs_nothing_private(path: Path) -> None:
    ours = [name for name in imported(path) if name.partition(".")[0] == "modelbuild"]
    if path.name == "rule.py":
        assert set(ours) == {"modelbuild.api"}
    else:
        assert all(name.startswith("modelbuild.toolkit.") or name == "modelbuild.api" for name in ours), ours


def test_every_toolchain_says_what_it_is() -> None:
    for rule in FILES:
        if rule.name == "rule.py":
            beside = {path.name for path in (ROOT / rule).parent.iterdir()}
            assert {"BUILD.models", "README.md"} <= beside, rule
            assert any(name.endswith(".lock") for name in beside), rule
