"""Evaluating one BUILD file with all it loads; runs inside the evaluator's process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import starlark as engine

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label
from modelbuild.loading.globs import PackageFiles
from modelbuild.loading.json_file import read_json
from modelbuild.loading.source_file import BUILD_FILE, read_source, str_path
from modelbuild.loading.starlark import Interpreter, RuleCall, make_select, opaque

RECORDED_FUNCTIONS = ("exports_files", "licenses", "package", "package_group")
"""Functions of a BUILD file that are recorded in order, like rule calls."""
JSON_SYMBOL = "value"
"""What `load` finds in a .json file; the word is Buck2's."""


@dataclass(slots=True)
class Declarations:
    """What evaluating one BUILD file gave. `files` are absolute paths, as are `directories` and `absent`."""

    calls: list[RuleCall] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)
    rule_files: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Extension:
    """A loaded .bzl or .json file, and the files and directory listings that it rests on."""

    module: engine.FrozenModule
    files: frozenset[str]
    directories: frozenset[str]
    rule_files: tuple[tuple[str, tuple[str, ...]], ...]


class BuildFileEvaluator:
    """Evaluates BUILD files of one workspace; .bzl and .json files are read once.

    root_of: repository name -> absolute directory. skip: absolute directories that no glob enters.
    announce: told the file that is being evaluated, so that its name survives this process.
    """

    def __init__(
        self,
        rules: Sequence[str],
        root_of: Callable[[str], str],
        skip: frozenset[str],
        announce: Callable[[str], None],
        cpu_seconds: float,
    ) -> None:
        self._root_of = root_of
        self._skip = skip
        self._announce = announce
        self._extensions: dict[Label, Extension] = {}
        self._loading: list[Label] = []
        self._package: tuple[str, str] | None = None
        self._current = Declarations()
        self._files = PackageFiles("")
        natives: dict[str, Callable[..., Any]] = {
            "existing_rule": self._existing_rule,
            "existing_rules": self._existing_rules,
            "glob": self._glob,
            "package_name": lambda: self._in_package("package_name")[1],
            "repository_name": lambda: f"@{self._in_package('repository_name')[0]}",
            "select": make_select,
        }
        recorded = (*rules, *RECORDED_FUNCTIONS)
        self._interpreter = Interpreter(natives, recorded, self._record, self._write, cpu_seconds)

    def evaluate(self, repository: str, package: str) -> Declarations:
        """Evaluate the BUILD file of `package`. Raises LoadError."""
        label = Label(repository, package, BUILD_FILE)
        path = self._path(label)
        self._current = Declarations(files={path})
        self._files = PackageFiles(os.path.dirname(path), self._skip)
        source = read_source(path, str_path(label))
        self._announce(str_path(label))
        self._package = (repository, package)
        try:
            self._interpreter.build_file(str_path(label), source, self._loader(label))
        finally:
            self._package = None
        self._current.directories |= self._files.listed
        self._current.files |= self._files.links
        return self._current

    def _loader(self, importer: Label) -> Callable[[str, Sequence[str]], engine.FrozenModule]:
        def load(text: str, symbols: Sequence[str]) -> engine.FrozenModule:
            label = self._load_label(text, importer)
            private = [symbol for symbol in symbols if symbol.startswith("_")]
            if private:
                raise LoadError(f"`{private[0]}` of `{label}` is private")
            if label.name.endswith(".py"):
                self._current.rule_files.setdefault(str(label), set()).update(symbols)
                return self._interpreter.rule_file(str(label), symbols)
            others = [symbol for symbol in symbols if symbol != JSON_SYMBOL]
            if label.name.endswith(".json") and others:
                raise LoadError(
                    f"`{label}` has no `{others[0]}`: a .json file has one name, `{JSON_SYMBOL}`",
                    hint=f'write `load("{text}", {others[0]} = "{JSON_SYMBOL}")`',
                )
            extension = self._extension(label)
            self._current.files |= extension.files
            self._current.directories |= extension.directories
            for file, names in extension.rule_files:
                self._current.rule_files.setdefault(file, set()).update(names)
            return extension.module

        return load

    def _load_label(self, text: str, importer: Label) -> Label:
        if not text.startswith(("//", ":", "@")):
            raise LoadError(
                f"`{text}` cannot be loaded",
                hint="write `//package:file.bzl`, or `:file.bzl` for a file of the same package",
            )
        label = parse_label(text, importer.package, importer.repository)
        if not label.name.endswith((".bzl", ".json", ".py")):
            raise LoadError(f"`{text}` is neither a .bzl file, a .json file nor a rule file (.py)")
        return label

    def _extension(self, label: Label) -> Extension:
        known = self._extensions.get(label)
        if known is not None:
            return known
        if label in self._loading:
            cycle = [*self._loading[self._loading.index(label) :], label]
            raise LoadError(
                f"`{label}` loads itself",
                notes=tuple(f"`{a}` loads `{b}`" for a, b in pairwise(cycle)),
            )
        path = self._path(label)
        outer, package = self._current, self._package
        self._current, self._package = Declarations(files={path}), None
        self._loading.append(label)
        try:
            self._check_boundary(label)
            source = read_source(path, str_path(label), "file")
            self._announce(str_path(label))
            if label.name.endswith(".json"):
                module = self._interpreter.constant(JSON_SYMBOL, read_json(source, str_path(label)))
            else:
                module = self._interpreter.extension(str_path(label), source, self._loader(label))
            outer.messages += self._current.messages
            rule_files = tuple((f, tuple(sorted(n))) for f, n in self._current.rule_files.items())
            extension = Extension(
                module, frozenset(self._current.files), frozenset(self._current.directories), rule_files
            )
        finally:
            self._loading.pop()
            self._current, self._package = outer, package
        self._extensions[label] = extension
        return extension

    def _check_boundary(self, label: Label) -> None:
        """A loaded file is named through its own package, which must exist, as in Bazel."""
        root = self._root_of(label.repository)
        build_file = os.path.join(root, label.package, BUILD_FILE)
        self._current.files.add(build_file)
        if not os.path.isfile(build_file):
            where = f"//{label.package}"
            raise LoadError(
                f"`{label}` cannot be loaded: `{where}` is not a package",
                hint=f"an empty file `{label.sibling(BUILD_FILE).path}` makes it one",
            )
        directory = label.package
        for segment in label.name.split("/")[:-1]:
            directory = f"{directory}/{segment}" if directory else segment
            if os.path.isdir(os.path.join(root, directory)):
                self._current.directories.add(os.path.join(root, directory))
            if os.path.isfile(os.path.join(root, directory, BUILD_FILE)):
                right = Label(label.repository, directory, label.path.removeprefix(f"{directory}/"))
                raise LoadError(
                    f"`{label}` crosses into package `//{directory}`", hint=f"did you mean `{right}`?"
                )

    def _path(self, label: Label) -> str:
        return os.path.join(self._root_of(label.repository), label.path)

    def _in_package(self, function: str) -> tuple[str, str]:
        if self._package is None:
            raise LoadError(
                f"`native.{function}` is called while a .bzl file is loaded",
                hint="call it inside a macro, which a BUILD file calls",
            )
        return self._package

    def _record(self, call: RuleCall) -> None:
        self._in_package(call.rule.rpartition("%")[2])
        self._current.calls.append(call)

    def _write(self, text: str) -> None:
        self._current.messages.append(text)

    def _existing_rule(self, name: str) -> dict[str, Any] | None:
        return self._existing_rules().get(name)

    def _existing_rules(self) -> dict[str, dict[str, Any]]:
        self._in_package("existing_rules")
        return {
            str(call.attributes["name"]): {
                "kind": call.rule.rpartition("%")[2],
                **{key: opaque(value) for key, value in call.attributes.items()},
            }
            for call in self._current.calls
            if "name" in call.attributes and call.rule not in RECORDED_FUNCTIONS
        }

    def _glob(
        self,
        include: Any = (),
        exclude: Any = (),
        exclude_directories: Any = 1,
        allow_empty: Any = True,
    ) -> list[str]:
        self._in_package("glob")
        for name, value in (("include", include), ("exclude", exclude)):
            if isinstance(value, str) or not isinstance(value, (list, tuple)):
                raise LoadError(f"`{name}` of `glob` must be a list of patterns")
        if allow_empty not in (True, False):
            raise LoadError("`allow_empty` of `glob` must be True or False")
        found = self._files.glob(include, exclude, directories=not exclude_directories)
        if not found and not allow_empty:
            patterns = ", ".join(f"`{pattern}`" for pattern in include)
            raise LoadError(f"glob of {patterns} matches no file", hint="`allow_empty = True` permits that")
        return found
