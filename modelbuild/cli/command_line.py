"""The parser of every command: argparse, with errors in modelbuild's own words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from modelbuild.errors import UsageError
from modelbuild.loading.suggestion import did_you_mean

_NEGATIVE_PATTERN = re.compile(r"^-(//|:|@)")
_GUARD = "\0"


class CommandLine(argparse.ArgumentParser):
    """The flags and arguments of one command."""

    def __init__(self, command: str, summary: str, usage: str = "") -> None:
        super().__init__(
            prog=f"modelbuild {command}",
            description=summary,
            usage=f"modelbuild {command} {usage or '[flags]'}",
            add_help=False,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )
        self.command = command
        self._optionals.title = "flags"
        self._positionals.title = "arguments"

    def error(self, message: str) -> NoReturn:
        """Called by argparse for a bad value or a missing argument."""
        what = re.sub(r"argument ([^:]+): ", r"`\1`: ", message)
        what = re.sub(r"the following arguments are required: (.+)", r"`\1` is missing", what)
        what = re.sub(r"invalid choice: '([^']*)' \(choose from (.*)\)", _choices, what)
        what = re.sub(r"invalid \w+ value: '([^']*)'", r"`\1` is not a number", what)
        what = what.replace("expected one argument", "needs a value")
        what = re.sub(r"ignored explicit argument .*", "takes no value", what)
        raise UsageError(what, hint=f"`modelbuild help {self.command}` shows how it is used")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse; raises UsageError for what it does not know.

        What follows `--` is in `rest`. A negative target pattern (`-//x`) is an argument, not a flag.
        """
        words = list(arguments)
        rest: list[str] = []
        if "--" in words:
            at = words.index("--")
            words, rest = words[:at], words[at + 1 :]
        guarded = [_GUARD + word if _NEGATIVE_PATTERN.match(word) else word for word in words]
        args, unknown = self.parse_known_intermixed_args(guarded)
        if unknown:
            self._refuse(unknown[0].removeprefix(_GUARD))
        for name, value in vars(args).items():
            if isinstance(value, list):
                setattr(args, name, [v.removeprefix(_GUARD) if isinstance(v, str) else v for v in value])
            elif isinstance(value, str):
                setattr(args, name, value.removeprefix(_GUARD))
        args.rest = rest
        return args

    def flags(self) -> list[str]:
        """Every flag, for completion and did-you-mean."""
        return sorted(flag for flag in self._option_string_actions if flag.startswith("--"))

    def option(self, flag: str) -> argparse.Action | None:
        """The flag's definition, or None."""
        return self._option_string_actions.get(flag)

    def _refuse(self, word: str) -> NoReturn:
        usage = f"`modelbuild help {self.command}` shows how it is used"
        if not word.startswith("-"):
            raise UsageError(f"`modelbuild {self.command}` takes no argument `{word}`", hint=usage)
        flag = word.partition("=")[0]
        raise UsageError(
            f"`modelbuild {self.command}` has no flag `{flag}`",
            hint=did_you_mean(flag, self.flags()) or usage,
        )


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`-j, --jobs N`, which Python writes differently from version to version."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        flags = ", ".join(action.option_strings)
        if action.nargs == 0:
            return flags
        return f"{flags} {self._format_args(action, self._get_default_metavar_for_optional(action))}"


def _choices(match: re.Match[str]) -> str:
    known = re.findall(r"'([^']*)'", match[2])
    return f"`{match[1]}` is none of " + ", ".join(f"`{word}`" for word in known)


def positive_int(text: str) -> int:
    """A whole number from 1; an argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is less than 1")
    return value


def non_empty(text: str) -> str:
    """A path; an argparse type. Empty is what a script's unset variable leaves."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty")
    return text


def add_general_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that every command has; main reads them."""
    group = parser.add_argument_group("general flags")
    group.add_argument("-h", "--help", action="store_true", help="show this text")
    group.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="colours (auto: on a terminal)"
    )
    group.add_argument("-v", "--verbose", action="store_true", help="say more; show tracebacks of bugs")
    group.add_argument("--quiet", action="store_true", help="say only what went wrong")


def add_workspace_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the commands that read a workspace."""
    group = parser.add_argument_group("workspace flags")
    group.add_argument(
        "--cache-dir", type=non_empty, metavar="DIR", help="the local cache (default: `cache/`)"
    )
    group.add_argument("--config", metavar="NAME", help="settings of `[profile.NAME]` in modelbuild.toml")


def add_platform_flags(parser: argparse.ArgumentParser, *, resolves: bool = True) -> None:
    """Flags of the commands that configure targets. resolves: whether toolchains are chosen."""
    group = parser.add_argument_group("platform flags")
    group.add_argument(
        "--platform", metavar="LABEL", default="", help="build for this platform (default: this machine)"
    )
    group.add_argument(
        "--extra-toolchains",
        metavar="PATTERN",
        action="append",
        default=[],
        help="consider these toolchains before those of modelbuild.toml, the last first",
    )
    group.add_argument(
        "--define",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a variable that `config_setting` asks for",
    )
    if resolves:
        group.add_argument(
            "--toolchain-resolution-debug", action="store_true", help="say how each toolchain was chosen"
        )


def add_build_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the commands that run actions."""
    group = parser.add_argument_group("build flags")
    group.add_argument("-j", "--jobs", type=positive_int, metavar="N", help="how many actions at once")
    group.add_argument("-k", "--keep-going", action="store_true", help="build what does not need the failed")
    group.add_argument("--check", action="store_true", help="rerun every action and compare with the cache")
    group.add_argument(
        "--events", type=non_empty, metavar="FILE", help="write the build's events as JSON lines"
    )
    group.add_argument(
        "--profile", type=non_empty, metavar="FILE", help="write a Chrome trace (open it in Perfetto)"
    )
    group.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
