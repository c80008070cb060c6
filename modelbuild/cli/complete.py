"""`modelbuild complete -- WORD...`: what the last word may become; for completion scripts, not for people.

Labels are found by reading BUILD files as text: a half-typed command line must be answered in a blink, and
a BUILD file that is wrong at the moment must not silence it. Targets that macros make are not found.
"""

from __future__ import annotations

import argparse
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence

from modelbuild.cli.command_line import CommandLine, add_general_flags
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import ModelbuildError

SUMMARY = "Complete a command line"
USAGE = "-- WORD..."

_NAME = re.compile(r"""\bname\s*=\s*["']([^"']+)["']""")
_LABEL_COMMANDS = ("build", "test", "run", "matrix", "query", "cquery", "aquery", "explain", "log")


def configure(_parser: ArgumentParser) -> None:
    """Only words after `--`."""


def run(args: Namespace, terminal: Terminal) -> int:
    """One candidate a line."""
    found = dict.fromkeys(candidates(args.rest))
    terminal.write("\n".join(found))
    return 0


def candidates(words: Sequence[str]) -> Iterable[str]:
    """What the last of `words` (those after `modelbuild`) may become."""
    from modelbuild.cli.main import COMMANDS, command_module  # noqa: PLC0415

    *before, current = words or [""]
    if not before:
        return _starting(current, COMMANDS)
    command = before[0]
    if command not in COMMANDS:
        return []
    if command == "help":
        return _starting(current, _help_topics(before[1:]))
    module = command_module(command)
    parser = CommandLine(command, module.SUMMARY, module.USAGE)
    module.configure(parser)
    add_general_flags(parser)
    if current.startswith("-") and not current.startswith(("-//", "-:")):
        return _starting(current, parser.flags())
    choices = _values(parser, before[-1])
    if choices is not None:
        return _starting(current, choices)
    if command in _LABEL_COMMANDS:
        return _labels(current)
    return _starting(current, _positional_choices(parser))


def _starting(prefix: str, known: Iterable[str]) -> list[str]:
    return [word for word in known if word.startswith(prefix)]


def _help_topics(before: Sequence[str]) -> Iterable[str]:
    from modelbuild.cli.main import COMMANDS  # noqa: PLC0415
    from modelbuild.rules import BUILTIN_RULES  # noqa: PLC0415

    if not before:
        return [*COMMANDS, "rule"]
    return BUILTIN_RULES if before == ["rule"] else []


def _values(parser: CommandLine, flag: str) -> Iterable[str] | None:
    """What may follow a flag that takes a value; None when `flag` is no such flag."""
    action = parser.option(flag)
    if action is None or action.nargs == 0:
        return None
    if flag == "--config":
        from modelbuild.loading.workspace import find_workspace  # noqa: PLC0415

        try:
            return find_workspace(os.getcwd()).profiles
        except ModelbuildError:
            return []  # Outside a workspace there is nothing to offer, and nobody to tell.
    return [str(choice) for choice in action.choices or ()]


def _positional_choices(parser: argparse.ArgumentParser) -> Iterable[str]:
    return [
        str(choice)
        for action in parser._actions  # noqa: SLF001  # argparse has no public way to list them
        if not action.option_strings and action.choices
        for choice in action.choices
    ]


def _labels(current: str) -> Iterable[str]:
    from modelbuild.loading.workspace import find_workspace  # noqa: PLC0415

    negative = "-" if current.startswith("-") else ""
    text = current.removeprefix("-")
    try:
        workspace = find_workspace(os.getcwd())
        if not text.startswith("//"):
            package = workspace.working_package(os.getcwd())
            colon = ":" if text.startswith(":") else ""
            names = _target_names(workspace.build_file(package))
            return _starting(current, [f"{negative}{colon}{name}" for name in names])
        package, colon, _ = text.removeprefix("//").partition(":")
        if colon:
            names = _target_names(workspace.build_file(package))
            return _starting(current, [f"{negative}//{package}:{name}" for name in (*names, "all")])
        packages = [p for p in workspace.find_packages().packages if p.startswith(package)]
    except ModelbuildError:
        return []  # See above.
    found = [f"{negative}//{name}:" for name in packages]
    return _labels(found[0]) if len(found) == 1 and found[0] == f"{current}:" else found


def _target_names(build_file: str) -> list[str]:
    try:
        with open(build_file, encoding="utf-8", errors="replace") as stream:
            return sorted(set(_NAME.findall(stream.read())))
    except OSError:
        return []
