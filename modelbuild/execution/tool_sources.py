"""ToolSources: the files a Python tool is made of, found by reading import statements.

A tool may import the standard library, files beside it, modules of modelbuild.toolkit, and the
distributions it declares. Nothing is executed to find out.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from modelbuild.errors import AnalysisError, Location

_TOOLKIT = "modelbuild.toolkit"
_ALLOWED_IN_MODELBUILD = ("modelbuild", _TOOLKIT)


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement. names: what `from module import names` takes, empty otherwise."""

    module: str
    names: tuple[str, ...]
    level: int
    line: int


@dataclass(frozen=True, slots=True)
class ThirdParty:
    """An import of a top-level package that is neither the standard library's nor the tool's own."""

    package: str
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class ToolSources:
    """files: stable name -> absolute path. absent: paths that would be taken if they existed."""

    files: dict[str, str]
    third_party: tuple[ThirdParty, ...]


def read_tool_sources(tool: str, toolkit: str) -> ToolSources:
    """The closure of the file `tool`; `toolkit` is the directory of modelbuild.toolkit.

    Raises AnalysisError when a file cannot be read or parsed, or imports another part of modelbuild.
    """
    return _Reader(os.path.dirname(tool), toolkit).read(tool)


class _Reader:
    def __init__(self, folder: str, toolkit: str) -> None:
        self._folder = folder
        self._toolkit = toolkit
        self._files: dict[str, str] = {}
        self._third_party: dict[str, ThirdParty] = {}
        self._pending: list[str] = []

    def read(self, tool: str) -> ToolSources:
        self._add(tool)
        # The worker itself uses these two for every tool.
        self._add(os.path.join(self._toolkit, "__init__.py"))
        self._add(os.path.join(self._toolkit, "request.py"))
        while self._pending:
            path = self._pending.pop()
            for each in read_imports(path):
                self._follow(each, path)
        return ToolSources(dict(sorted(self._files.items())), tuple(self._third_party.values()))

    def _add(self, path: str) -> None:
        name = self._name(path)
        if name not in self._files:
            self._files[name] = path
            self._pending.append(path)

    def _name(self, path: str) -> str:
        if path.startswith(self._toolkit + "/"):
            return "modelbuild/toolkit/" + path[len(self._toolkit) + 1 :]
        return os.path.relpath(path, self._folder)

    def _follow(self, each: Import, path: str) -> None:
        module = self._absolute(each, path)
        if module == "modelbuild" or module.startswith("modelbuild."):
            self._follow_modelbuild(each, module, path)
            return
        top = module.partition(".")[0]
        if self._add_module(self._folder, module, each.names):
            return
        if top in sys.stdlib_module_names:
            return
        self._third_party.setdefault(top, ThirdParty(top, path, each.line))

    def _follow_modelbuild(self, each: Import, module: str, path: str) -> None:
        modules = [module]
        if module == "modelbuild":
            modules = [f"modelbuild.{name}" for name in each.names] or ["modelbuild"]
        for name in modules:
            if name != _TOOLKIT and not name.startswith(_TOOLKIT + "."):
                raise AnalysisError(
                    f"a tool imports `{name}`",
                    location=Location(path, each.line),
                    notes=("tools run without modelbuild, except for `modelbuild.toolkit`",),
                    hint="move what the tool needs beside it, or hand it over in `params`",
                )
            inside = name.removeprefix(_TOOLKIT).removeprefix(".")
            names = each.names if name == module else ()
            if inside:
                if not self._add_module(self._toolkit, inside, names):
                    raise AnalysisError(f"there is no module `{name}`", location=Location(path, each.line))
            else:
                for attribute in names:
                    self._add_module(self._toolkit, attribute, ())

    def _absolute(self, each: Import, path: str) -> str:
        """The module that is imported, as a path from the folder or with `modelbuild.toolkit` in front."""
        if not each.level:
            return each.module
        name = self._name(path)
        package = os.path.dirname(name).split("/")
        package = package[: len(package) - (each.level - 1)] if each.level > 1 else package
        return ".".join([*(part for part in package if part), *([each.module] if each.module else [])])

    def _add_module(self, folder: str, module: str, names: tuple[str, ...]) -> bool:
        """Add the files that importing `module` from `folder` runs; False when it is not there."""
        if not module:
            return bool([name for name in names if self._add_module(folder, name, ())])
        base = folder
        parts = module.split(".")
        for index, part in enumerate(parts):
            package = os.path.join(base, part)
            file = package + ".py"
            if os.path.isdir(package) and (
                os.path.isfile(os.path.join(package, "__init__.py")) or not os.path.isfile(file)
            ):
                if os.path.isfile(os.path.join(package, "__init__.py")):
                    self._add(os.path.join(package, "__init__.py"))
                elif index == 0 and not _holds_python(package):
                    return False
                base = package
                continue
            if os.path.isfile(file):
                self._add(file)
                return True
            return index > 0
        for name in names:
            self._add_module(base, name, ())
        return True


def _holds_python(folder: str) -> bool:
    return any(name.endswith(".py") for name in os.listdir(folder))


def read_imports(path: str) -> list[Import]:
    """The imports of a Python file, those inside functions included, those for type checkers not."""
    try:
        with open(path, "rb") as stream:
            tree = ast.parse(stream.read(), path)
    except OSError as error:
        raise AnalysisError(f"cannot read the tool `{path}`: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 0
        raise AnalysisError(f"a tool is not Python: {error}", location=Location(path, line)) from error
    return list(_imports(tree))


def _imports(node: ast.AST) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, (), 0, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            names = tuple(alias.name for alias in child.names)
            yield Import(child.module or "", names, child.level, child.lineno)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            for branch in child.orelse:
                yield from _imports(ast.Module([branch], []))
        else:
            if isinstance(child, ast.Call) and (name := _dynamic_import(child)):
                yield Import(name, (), 0, child.lineno)
            yield from _imports(child)


def _is_type_checking(test: ast.expr) -> bool:
    if isinstance(test, ast.Attribute):
        return test.attr == "TYPE_CHECKING"
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _dynamic_import(call: ast.Call) -> str | None:
    """The module in `importlib.import_module("name")` and `__import__("name")`."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in ("import_module", "__import__") or not call.args:
        return None
    first = call.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
