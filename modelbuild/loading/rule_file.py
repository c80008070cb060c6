"""Rule classes: the built-in ones, and those that a BUILD file loads from a Python file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from modelbuild.errors import LoadError, Location
from modelbuild.label import Label, parse_label
from modelbuild.loading.repository import installed_repositories, repository_module, repository_root
from modelbuild.loading.source_file import read_source, str_path
from modelbuild.loading.suggestion import did_you_mean
from modelbuild.rule import Rule, rule_name

RULE_DIRECTORIES = ("toolchains", "rules")
"""Where a workspace keeps its rule files."""


class RuleClasses:
    """Finds the class of each recorded rule; a file is run once.

    builtin: rule name -> `module:class`.
    """

    def __init__(self, root_of: Callable[[str], str], builtin: Mapping[str, str]) -> None:
        self._root_of = root_of
        self._builtin = builtin
        self._found: dict[str, type[Rule]] = {}
        self._modules: dict[Label, ModuleType] = {}
        self.files: set[str] = set()
        """The rule files that were run, absolute."""

    def find(self, rule: str) -> type[Rule]:
        """The class of a built-in rule, or of `//pkg:rule.py%symbol`. Raises LoadError."""
        found = self._found.get(rule)
        if found is None:
            file, separator, symbol = rule.rpartition("%")
            found = self._exported(file, symbol) if separator else _import(self._builtin[rule])
            self._found[rule] = found
        return found

    def check(self, file: str, symbols: tuple[str, ...]) -> None:
        """Raise LoadError when a rule file does not have a symbol that is loaded from it."""
        for symbol in symbols:
            self.find(f"{file}%{symbol}")

    def defined_in(self, file: Label) -> dict[str, type[Rule]]:
        """Rule name -> class of the public rules that a rule file defines itself. Raises LoadError."""
        module = self._run(file)
        return {
            rule_name(value): value
            for name, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, Rule)
            and value.__module__ == module.__name__
            and not name.startswith("_")
        }

    def _exported(self, file: str, symbol: str) -> type[Rule]:
        label = parse_label(file)
        module = self._modules.get(label)
        if module is None:
            module = self._modules[label] = self._run(label)
        rules = {
            rule_name(value): value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Rule) and value is not Rule
        }
        if symbol not in rules:
            raise LoadError(
                f"`{label}` has no rule `{symbol}`",
                hint=did_you_mean(symbol, rules)
                or (f"it has {', '.join(f'`{name}`' for name in sorted(rules))}" if rules else None),
            )
        return rules[symbol]

    def _run(self, label: Label) -> ModuleType:
        root = self._root_of(label.repository)
        path = os.path.join(root, label.path)
        self.files.add(path)
        if not label.repository and label.package.partition("/")[0] not in RULE_DIRECTORIES:
            raise LoadError(
                f"rule file `{label}` is outside of {' and '.join(f'`{d}/`' for d in RULE_DIRECTORIES)}",
                hint="loading a rule file runs its code, so there are places for it",
            )
        read_source(path, str_path(label), "rule file")
        try:
            if label.repository:
                return importlib.import_module(self._installed_name(label))
            return _run_file(path)
        except LoadError:
            raise
        except (Exception, SystemExit) as error:
            raise _failed(error, path, label) from error

    def _installed_name(self, label: Label) -> str:
        inner = label.path.removesuffix(".py").replace("/", ".")
        return f"{repository_module(label.repository)}.{inner}"


def builtin_rules() -> Mapping[str, str]:
    """Rule name -> `module:class` of the built-in rules, which are found by name as everyone's are."""
    table: Mapping[str, str] = importlib.import_module("modelbuild.rules").BUILTIN_RULES
    return table


@dataclass(frozen=True, slots=True)
class LoadedRule:
    """A rule that a workspace, or an installed repository, has in a rule file. file: what `load` takes."""

    file: str
    rule_class: type[Rule]


def workspace_rules(root: str) -> dict[str, LoadedRule]:
    """Rule name -> the rules in files `rule.py` below the places for rule files; runs those files.

    For help and reference; a build runs only what is loaded. Raises LoadError for a file that fails.
    """
    return _rules_below(root, "", RULE_DIRECTORIES)


def installed_rules() -> dict[str, LoadedRule]:
    """The same for the files `rule.py` of installed repositories."""
    found: dict[str, LoadedRule] = {}
    for repository in sorted(installed_repositories()):
        found |= _rules_below(repository_root(repository), repository, ("",)) | found
    return found


def _rules_below(root: str, repository: str, places: Sequence[str]) -> dict[str, LoadedRule]:
    classes = RuleClasses(lambda _: root, {})
    found: dict[str, LoadedRule] = {}
    for place in places:
        for folder, folders, names in os.walk(os.path.join(root, place)):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
            if "rule.py" not in names:
                continue
            package = os.path.relpath(folder, root).replace(os.sep, "/").removeprefix(".")
            label = f"@{repository}//{package}:rule.py" if repository else f"//{package}:rule.py"
            for name, rule_class in classes.defined_in(parse_label(label)).items():
                found.setdefault(name, LoadedRule(label, rule_class))
    return found


def _import(rule: str) -> type[Rule]:
    module_name, _, class_name = rule.partition(":")
    found: type[Rule] = getattr(importlib.import_module(module_name), class_name)
    return found


def _run_file(path: str) -> ModuleType:
    """Run a Python file under its path as module name: two toolchains may both have a `rule.py`."""
    spec = importlib.util.spec_from_file_location(path, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path] = module  # pydantic looks a class's annotations up there
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # loading leaves no `__pycache__` in a workspace: a glob would see it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path]
        raise
    finally:
        sys.dont_write_bytecode = writes_bytecode
    return module


def _failed(error: BaseException, path: str, label: Label) -> LoadError:
    """A mistake in a rule file, at the line of that file."""
    shown = str_path(label)
    if isinstance(error, SyntaxError) and error.filename == path:
        location = Location(shown, error.lineno or 0, error.offset or 0)
        return LoadError(f"rule file `{label}` is not Python: {error.msg}", location=location)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    location = Location(shown, frames[-1].lineno or 0) if frames else Location(shown)
    message = str(error).partition("\n")[0]
    return LoadError(f"rule file `{label}` fails: {type(error).__name__}: {message}", location=location)
