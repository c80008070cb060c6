"""The one seam to starlark-pyo3: dialects, the prelude that records rule calls, and errors with places.

A rule call in a BUILD file reaches Python as a RuleCall: plain data and the stack of the call. Nothing here
touches a file; the text is given, and `load` is answered by a callback. Memory is not bounded here: see
evaluator.py, which runs all of this in a process of its own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import starlark as engine

from modelbuild.errors import LoadError, Location
from modelbuild.loading.select import Select

Frame = tuple[str, int, str]
"""One line of a call stack: path, line, function."""
Loader = Callable[[str, Sequence[str]], "engine.FrozenModule"]
"""Answers `load(label, symbol, ...)`."""

_PRELUDE = "<modelbuild>"
_FRAME = re.compile(r"^  \* (.*):(\d+), in (.*)$", re.MULTILINE)
_SPAN = re.compile(r"^ *--> (.*):(\d+):(\d+)$", re.MULTILINE)
_MESSAGE = re.compile(r"^error: (.*?)(?=\n *-->|\Z)", re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r"unexpected keyword argument '(\w+)'")
_SELECT_SUM = re.compile(r"`\+` not supported for types `(string` and `list|list` and `string)`")
_TAB = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|#[^\n]*|\t',
    re.DOTALL,
)
"""Strings and comments, which stay, and tabs, which the engine refuses outside of them."""
_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_NOT_FINITE = re.compile(r"[+-]?\b(nan|inf)\b")
_SUGGESTION = re.compile(r", did you mean (`[^`]*`)\?")
_SELECT = re.compile(r"\bselect\s*\(")
_LOAD = re.compile(r"\bload\s*\(")
_MAX_DEPTH = 100
_HEADER_LINES = 1


@dataclass(frozen=True, slots=True)
class RuleCall:
    """A call of a rule or of `package`, `exports_files`, ... in a BUILD file.

    rule: the name of a built-in, or `//pkg:rule.py%symbol`. frames: outermost first.
    """

    rule: str
    positional: list[Any]
    attributes: dict[str, Any]
    frames: tuple[Frame, ...]


_CHECKED_SELECT = """
def select(*args, **kwargs):
    found, has_none = __select(*args, **kwargs)
    if has_none:
        __check_numbers("select", repr(args) + repr(kwargs))
    return found
"""


class Interpreter:
    """Evaluates BUILD files and .bzl files.

    natives: functions given to BUILD files by name, and to .bzl files as `native.NAME`.
    recorded: names whose calls are passed to `record`.
    cpu_seconds: how long one file may take.
    """

    def __init__(
        self,
        natives: Mapping[str, Callable[..., Any]],
        recorded: Sequence[str],
        record: Callable[[RuleCall], None],
        write: Callable[[str], None],
        cpu_seconds: float,
    ) -> None:
        self._record = record
        self._write = write
        self._cpu_seconds = cpu_seconds
        self._failure: LoadError | None = None
        self._sources: dict[str, str] = {}
        extension = engine.LibraryExtension
        self._globals = engine.Globals.extended_by(
            [extension.StructType, extension.Json, extension.CallStack]
        )
        self._build_dialect = engine.Dialect.standard()
        self._build_dialect.enable_def = False
        self._build_dialect.enable_lambda = False
        self._build_dialect.enable_top_level_stmt = False
        self._bzl_dialect = engine.Dialect.standard()
        self._bzl_dialect.enable_top_level_stmt = False
        self._bzl_dialect.enable_lambda = True
        self._bzl_dialect.enable_keyword_only_arguments = True
        self._native_names = frozenset((*natives, *recorded))
        names = [*natives, *recorded]
        members = ", ".join(f"{name} = {name}" for name in names if name != "select")
        source = "".join(_recorder(name, name) for name in recorded) + (
            f"native = struct({members})\n"
            'def print(*args, sep = " "):\n'
            "    __print(sep.join([str(a) for a in args]), str(call_stack(strip_frames = 1)))\n"
        )
        source += _CHECKED_SELECT if "select" in natives else ""
        inner = {f"__{name}" if name == "select" else name: native for name, native in natives.items()}
        module = self._module({**inner, "__print": self._print})
        self._prelude = self._frozen(module, source)
        self._build_names = (*names, "print")
        self._bzl_names = ("native", "select", "print")

    def build_file(self, path: str, source: str, load: Loader) -> None:
        """Evaluate a BUILD file; its calls go to `record`. Raises LoadError."""
        self._evaluate(path, source, self._build_dialect, self._build_names, load)

    def extension(self, path: str, source: str, load: Loader) -> engine.FrozenModule:
        """Evaluate a .bzl file. Raises LoadError."""
        return self._evaluate(path, source, self._bzl_dialect, self._bzl_names, load).freeze()

    def constant(self, name: str, value: Any) -> engine.FrozenModule:
        """A module with one name for plain data."""
        module = engine.Module()
        module[name] = value
        return module.freeze()

    def rule_file(self, file_label: str, symbols: Sequence[str]) -> engine.FrozenModule:
        """A module whose functions record calls of the rule classes of a Python file."""
        source = "".join(_recorder(s, f"{file_label}%{s}") for s in symbols if s.isidentifier())
        return self._frozen(self._module({}), source)

    def _module(self, natives: Mapping[str, Callable[..., Any]]) -> engine.Module:
        module = engine.Module()
        for name, function in natives.items():
            module.add_callable(name, self._guarded(function, name.removeprefix("__")))
        module.add_callable("__record", self._guarded(self._recorded))
        module.add_callable("__check_numbers", self._guarded(self._check_numbers))
        return module

    def _frozen(self, module: engine.Module, source: str) -> engine.FrozenModule:
        ast = engine.parse(_PRELUDE, source, engine.Dialect.extended())
        engine.eval(module, ast, self._globals)
        return module.freeze()

    def _recorded(self, rule: str, positional: list[Any], attributes: dict[str, Any], stack: str) -> bool:
        """Record a call. Whether there is a None in it: numbers that are not finite arrive as None, too."""
        frames = parse_frames(stack)
        functions = [(path, name) for path, _, name in frames]
        if len(frames) > 2 and len(set(functions)) < len(functions):
            name = next(name for path, name in functions if functions.count((path, name)) > 1)
            raise LoadError(f"macro `{name}` calls itself", hint="there is no recursion in Starlark")
        self._record(RuleCall(rule, positional, attributes, frames))
        return _holds_none(positional) or _holds_none(attributes)

    def _check_numbers(self, rule: str, written: str) -> None:
        """Refuse what would silently become an attribute's default. written: the call's arguments."""
        found = _NOT_FINITE.search(_STRING.sub("", written))
        if found:
            raise LoadError(f"`{rule}` is given the number `{found.group()}`", hint="numbers must be finite")

    def _print(self, text: str, stack: str) -> None:
        frames = parse_frames(stack)
        place = f"{frames[-1][0]}:{frames[-1][1]}" if frames else ""
        self._write(f"{place}: {text}")

    def _guarded(self, function: Callable[..., Any], name: str = "") -> Callable[..., Any]:
        """Keep a LoadError raised below Starlark, which would turn it into text.

        name: for a native function, whose arguments may not fit.
        """

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except LoadError as error:
                self._failure = error
                raise
            except TypeError as error:
                if not name:
                    raise
                unknown = _ARGUMENT.search(str(error))
                self._failure = LoadError(
                    f"`{name}` has no argument `{unknown.group(1)}`"
                    if unknown
                    else f"the arguments of `{name}` do not fit"
                )
                raise

        return call

    def _evaluate(
        self,
        path: str,
        source: str,
        dialect: engine.Dialect,
        names: Sequence[str],
        load: Loader,
    ) -> engine.Module:
        loaded: dict[str, Sequence[str]] = {}
        if "\t" in source:  # one space, so that columns stay
            source = _TAB.sub(lambda match: " " if match.group() == "\t" else match.group(), source)

        def answer(module_id: str) -> engine.FrozenModule:
            if module_id == _PRELUDE:
                return self._prelude
            return load(module_id, loaded.get(module_id, ()))

        self._sources[path] = source
        deadline = time.process_time() + self._cpu_seconds
        options = engine.EvalOptions(
            check_cancelled=lambda: time.process_time() > deadline, max_callstack_size=_MAX_DEPTH
        )
        module = engine.Module()
        try:
            shadowed: set[str] = set()
            statements = engine.parse(path, "\n" + source, dialect).loads() if _LOAD.search(source) else ()
            for statement in statements:
                loaded[statement.module_id] = (
                    *loaded.get(statement.module_id, ()),
                    *statement.symbols.values(),
                )
                shadowed |= set(statement.symbols)
            header = _header([name for name in names if name not in shadowed])
            ast = engine.parse(path, header + source, dialect)
            loader = engine.FileLoader(self._guarded(answer))
            engine.eval_with(options, module, ast, self._globals, file_loader=loader)
        except engine.StarlarkError as error:
            failure, self._failure = self._failure, None
            raise self._load_error(str(error.args[0]), path, failure) from None
        return module

    def _at_select(self, location: Location) -> Location:
        """A place with the column of the first `select` in its line, if any; stacks tell lines only."""
        lines = self._sources.get(location.path, "").splitlines()
        found = _SELECT.search(lines[location.line - 1]) if 0 < location.line <= len(lines) else None
        return Location(location.path, location.line, found.start() + 1) if found else location

    def _load_error(self, text: str, path: str, failure: LoadError | None) -> LoadError:
        """The error that Starlark's text describes, or `failure` with the place that the text gives."""
        location, frames = _place(text, path)
        if _in_prelude_select(text):
            location = self._at_select(location)
        if failure is not None:
            if failure.location is None:
                failure.location = location
            return failure
        found = _MESSAGE.search(text)
        message = (found.group(1) if found else text).strip()
        hint = None
        suggestion = _SUGGESTION.search(message)
        if suggestion:
            message = message.replace(suggestion.group(0), "")
            hint = f"did you mean {suggestion.group(1)}?"
        unknown = re.match(r"Variable `(\w+)` not found", message)
        if unknown:
            name = unknown.group(1)
            message = f"`{name}` is not defined"
            if path.endswith(".bzl") and name in self._native_names:
                hint = f"in a .bzl file it is called `native.{name}`"
        elif "call stack overflow" in message:
            message = f"`{frames[-1][2]}` recurses too deeply" if frames else "recursion is too deep"
            hint = f"a call may be nested {_MAX_DEPTH} deep"
            frames = frames[:3]
        elif message == "Evaluation cancelled":
            message = f"evaluation takes more than {self._cpu_seconds:g} s"
            hint = "is there a loop that does not end?"
        elif _SELECT_SUM.search(message):
            message = message[:1].lower() + message[1:].partition("\n")[0]
            hint = "a `select` of strings cannot be concatenated: write whole strings in its branches"
        elif message.startswith("fail: "):
            message = message.removeprefix("fail: ")
        else:
            message = _plain(message)
            if message.endswith(" in this dialect") and not path.endswith(".bzl"):
                message = message.removesuffix(" in this dialect") + " in a BUILD file"
                hint = "a macro in a .bzl file can do that"
        notes = tuple(
            f"called at {file}:{line}" + (f", in `{name}`" if name else "")
            for file, line, name in frames[:-1]
        )
        return LoadError(message, location=location, notes=notes, hint=hint)


def parse_frames(stack: str) -> tuple[Frame, ...]:
    """The frames in the text of a Starlark call stack, without those of the prelude."""
    return tuple(
        (path, int(line) - _HEADER_LINES, "" if name == "<module>" else name)
        for path, line, name in _FRAME.findall(stack)
        if path != _PRELUDE
    )


def opaque(value: Any) -> Any:
    """An attribute's value as it was given, on its way back into Starlark."""
    if isinstance(value, list):
        return [engine.OpaquePythonObject(item) if isinstance(item, Select) else item for item in value]
    return value


def make_select(branches: dict[str, Any], no_match_error: str = "") -> list[Any]:
    """What `select({...})` gives in a BUILD file, and whether there is a None in it. Raises LoadError."""
    if not isinstance(branches, dict) or not branches:
        raise LoadError("`select` needs a dictionary with at least one condition")
    for key in branches:
        if not isinstance(key, str):
            raise LoadError(f"a condition of `select` is a label, not {key!r}")
    if not isinstance(no_match_error, str):
        raise LoadError(f"`no_match_error` of `select` must be a string, not {no_match_error!r}")
    for value in branches.values():
        if isinstance(value, list) and any(isinstance(item, Select) for item in value):
            raise LoadError("`select` cannot hold another `select`")
    found = engine.OpaquePythonObject(Select(tuple(branches.items()), no_match_error))
    return [[found], _holds_none(branches)]


def _holds_none(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return value is None
    return any(map(_holds_none, value))


def _recorder(name: str, rule: str) -> str:
    return (
        f"def {name}(*args, **kwargs):\n"
        f'    if __record("{rule}", args, kwargs, str(call_stack(strip_frames = 1))):\n'
        f'        __check_numbers("{name}", repr(args) + repr(kwargs))\n'
    )


def _header(names: Sequence[str]) -> str:
    """The first line of every file that is evaluated: a load of the prelude. See _HEADER_LINES."""
    quoted = ", ".join(f'"{name}"' for name in names)
    return f'load("{_PRELUDE}", {quoted})\n' if names else "\n"


def _place(text: str, path: str) -> tuple[Location, tuple[Frame, ...]]:
    frames = parse_frames(text)
    span = _SPAN.search(text)
    if span and span.group(1) != _PRELUDE:
        return Location(span.group(1), int(span.group(2)) - _HEADER_LINES, int(span.group(3))), frames
    if frames:
        file, line, _ = frames[-1]
        return Location(file, line), frames
    return Location(path), frames


def _in_prelude_select(text: str) -> bool:
    """Whether the innermost frame of an error is the prelude's `select`."""
    frames = _FRAME.findall(text)
    return bool(frames) and frames[-1][::2] == (_PRELUDE, "select")


def _plain(message: str) -> str:
    """Starlark's words in the manner of ours."""
    message = message.removeprefix("StarlarkError: ")
    if message.startswith("Parse error: "):
        problem = message.removeprefix("Parse error: ").partition(", expected one of ")[0]
        return f"syntax error: {problem}"
    if "for integer string conversion" in message:
        return "a number of thousands of digits cannot be given to a rule"
    if "unhashable type" in message:
        return "a key of a dictionary that is given to a rule must be a string"
    if "serde::serialize" in message:
        kind = re.search(r"on type `(\w+)`", message)
        name = kind.group(1) if kind else "value"
        return f"a {'function' if 'callable' in name else name} cannot be given to a rule"
    message = message.replace(f"{_PRELUDE}.", "")
    first = message.partition("\n")[0]
    return first[:1].lower() + first[1:] if first[1:2].islower() else first
