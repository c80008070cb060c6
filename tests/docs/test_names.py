"""What ARCHITECTURE.md, CONTRIBUTING.md and the records name exists: files, folders, functions, commands."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from modelbuild.cli.main import COMMANDS
from tests.docs.markdown import DOCUMENTS, ROOT

NAMING = [
    path
    for path in DOCUMENTS
    if path.name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md") or "docs" in path.parts
]
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(
    r"(?:modelbuild|tests|docs|targets|benchmarks|changelog\.d|toolchains|\.ci)(?:/[\w.\-]+)*/?"
    r"|[A-Z]+\.md|Makefile|pyproject\.toml|requirements\.lock"
)
_FUNCTION = re.compile(r"((?:[a-z_]+/)*[a-z_]+\.py):([A-Za-z_][\w.]*)")
_PACKAGE_PATH = re.compile(r"(?:[a-z_]+/)+[a-z_]+\.py")
_COMMAND = re.compile(r"modelbuild ([a-z]+)\b")


def names(document: Path) -> list[str]:
    """What is in backticks in running text and tables; fenced blocks are left out."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return _CODE.findall(text)


@cache
def definitions(path: Path) -> frozenset[str]:
    """Functions, classes, methods and module variables of a Python file: `Worker.serve`, `KEY_SCHEMA`."""
    found = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign):
                found.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)

    visit(ast.parse(path.read_text()).body, "")
    return frozenset(found)


def located(path: str) -> Path | None:
    """A path as documents write it: from the root, or from `modelbuild/`."""
    for base in (ROOT, ROOT / "modelbuild"):
        if (base / path).exists():
            return base / path
    return None


@pytest.mark.parametrize("document", NAMING, ids=lambda d: str(d.relative_to(ROOT)))
def test_paths_exist(document: Path) -> None:
    missing = {
        name
        for name in names(document)
        if (_PATH.fullmatch(name) or _PACKAGE_PATH.fullmatch(name)) and located(name.rstrip("/")) is None
    }
    assert not missing, f"{document.relative_to(ROOT)} names what is not there: {sorted(missing)}"


@pytest.mark.parametrize("document", NAMING, ids=lambda d: str(d.relative_to(ROOT)))
def test_functions_exist(document: Path) -> None:
    """`driver/build.py:build` is the function `build` of that file."""
    missing = []
    for name in names(document):
        match = _FUNCTION.fullmatch(name)
        if match is None:
            continue
        path = located(match[1])
        if path is None or match[2] not in definitions(path):
            missing.append(name)
    assert not missing, f"{document.relative_to(ROOT)} names what is not there: {missing}"


@pytest.mark.parametrize("document", NAMING, ids=lambda d: str(d.relative_to(ROOT)))
def test_commands_exist(document: Path) -> None:
    called = {
        match[1]
        for name in names(document)
        if name.startswith("modelbuild ")
        for match in [_COMMAND.match(name)]
        if match is not None
    }
    assert called <= set(COMMANDS), sorted(called - set(COMMANDS))


def test_architecture_names_every_package_and_most_files() -> None:
    """The map is complete: a new package needs a line in it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = {
        path.parent.relative_to(ROOT / "modelbuild").as_posix() for path in ROOT.glob("modelbuild/*/*.py")
    }
    assert not {package for package in packages if f"`{package}/`" not in text}


def test_architecture_names_many_functions() -> None:
    """The tests above would pass on a document that names nothing."""
    found = [name for name in names(ROOT / "ARCHITECTURE.md") if _FUNCTION.fullmatch(name)]
    assert len(found) >= 30
