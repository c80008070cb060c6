"""The example uses what anybody may use: modelbuild.api in rules, the toolkit in tools, testing in tests."""

import ast
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT

EXAMPLE = ROOT / "examples/modelbuild-numpy"
FILES = sorted(EXAMPLE.rglob("*.py"))


def allowed(path: Path) -> tuple[str, ...]:
    if path.parent.name == "tests":
        return ("modelbuild.api", "modelbuild.testing", "modelbuild.toolkit")
    return ("modelbuild.api",) if path.name in ("rule.py", "toolchain.py") else ("modelbuild.toolkit",)


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if name.partition(".")[0] == "modelbuild"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_public_names(path: Path) -> None:
    wrong = {n for n in imported(path) if not any(n == a or n.startswith(f"{a}.") for a in allowed(path))}
    assert not wrong


def test_there_is_something_to_look_at() -> None:
    assert "modelbuild.api" in imported(EXAMPLE / "modelbuild_numpy/rule.py")
    assert len(FILES) > 8


def test_the_core_does_not_know_it() -> None:
    files = [path for path in (ROOT / "modelbuild").rglob("*") if path.suffix in (".py", ".models", ".toml")]
    assert len(files) > 200
    assert not [path for path in files if "modelbuild_numpy" in path.read_text()]
