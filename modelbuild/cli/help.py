"""`modelbuild help`: commands, rules and their attributes."""

from __future__ import annotations

import os
import textwrap
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from modelbuild.cli.terminal import Terminal
from modelbuild.errors import UsageError

if TYPE_CHECKING:
    from modelbuild.cli.rule_description import AttributeDescription, RuleDescription
    from modelbuild.loading.rule_file import LoadedRule

SUMMARY = "Explain commands and rules"
USAGE = "[COMMAND | rule [NAME]]"

_WIDTH = 100
_EXIT_CODES = """exit codes:
  0  everything asked for was done
  1  an action failed
  2  the command line or a BUILD file is wrong
  3  a test or a gate failed
  4  the environment or the cache is at fault: disk, memory, a package, a corrupt blob
  70 a bug in modelbuild
  130 interrupted"""


def configure(parser: ArgumentParser) -> None:
    """A topic."""
    parser.add_argument("topic", nargs="*", help="a command, or `rule` and the name of a rule")


def run(args: Namespace, terminal: Terminal) -> int:
    """Print what is asked for."""
    match args.topic:
        case []:
            terminal.write(_overview(terminal))
        case ["rule"] | ["rules"]:
            terminal.write(_rules(terminal))
        case ["rule", name]:
            terminal.write(_rule(name, terminal))
        case [name]:
            terminal.write(_command(name))
        case [*words]:
            raise UsageError(
                f"there is no help for `{' '.join(words)}`",
                hint="`modelbuild help COMMAND` and `modelbuild help rule NAME` explain one thing",
            )
    return 0


def _overview(terminal: Terminal) -> str:
    from modelbuild.cli.main import COMMANDS  # noqa: PLC0415

    bold = "bold"
    rows = [
        f"  {terminal.paint(f'{name:<12}', bold, terminal.out)} {text}" for name, text in COMMANDS.items()
    ]
    return "\n".join(
        [
            "modelbuild builds models for devices the way Bazel builds software.",
            "",
            "usage: modelbuild COMMAND [flags] [targets]",
            "",
            "commands:",
            *rows,
            "",
            "targets are named `//package:name`; `//package/...` is everything below a package,",
            "`:name` is in the package of the current directory, `-//x` leaves out.",
            "",
            "`modelbuild help COMMAND` explains a command, `modelbuild help rule` lists the rules,",
            "`modelbuild help rule NAME` explains one with its attributes.",
            "",
            _EXIT_CODES,
        ]
    )


def _command(name: str) -> str:
    from modelbuild.cli.command_line import CommandLine, add_general_flags  # noqa: PLC0415
    from modelbuild.cli.main import COMMANDS, command_module  # noqa: PLC0415
    from modelbuild.rules import BUILTIN_RULES  # noqa: PLC0415

    if name not in COMMANDS:
        if name in BUILTIN_RULES:
            raise UsageError(f"`{name}` is a rule, not a command", hint=f"`modelbuild help rule {name}`")
        from modelbuild.loading.suggestion import did_you_mean  # noqa: PLC0415

        raise UsageError(
            f"there is no command `{name}`",
            hint=did_you_mean(name, COMMANDS) or "`modelbuild help` lists the commands",
        )
    module = command_module(name)
    parser = CommandLine(name, module.SUMMARY, module.USAGE)
    module.configure(parser)
    add_general_flags(parser)
    return parser.format_help()


def _rules(terminal: Terminal) -> str:
    from modelbuild.cli.rule_description import builtin_rule, describe  # noqa: PLC0415
    from modelbuild.rules import BUILTIN_RULES  # noqa: PLC0415

    width = max(map(len, BUILTIN_RULES))
    rows = []
    for name in sorted(BUILTIN_RULES):
        summary = describe(builtin_rule(name), name).summary
        text = _shorten(summary, _WIDTH - width - 4)
        rows.append(f"  {terminal.paint(f'{name:<{width}}', 'bold', terminal.out)}  {text}")
    own = _own_rules()
    if own:
        rows += ["", "rules of this workspace and of installed packages, to be loaded:"]
        width = max(map(len, own))
        for name, rule in sorted(own.items()):
            text = _shorten(describe(rule.rule_class, name).summary, _WIDTH - width - 4)
            rows.append(f"  {terminal.paint(f'{name:<{width}}', 'bold', terminal.out)}  {text}")
    return "\n".join(["built-in rules:", *rows, "", "`modelbuild help rule NAME` shows a rule's attributes."])


def _own_rules() -> dict[str, LoadedRule]:
    """The rules of the workspace around the current directory, if there is one, and those of packages."""
    from modelbuild.loading.rule_file import installed_rules, workspace_rules  # noqa: PLC0415
    from modelbuild.loading.workspace import find_workspace  # noqa: PLC0415

    try:
        workspace = find_workspace(os.getcwd())
    except UsageError:
        return installed_rules()
    return installed_rules() | workspace_rules(workspace.root)


def _rule(name: str, terminal: Terminal) -> str:
    from modelbuild.cli.rule_description import builtin_rule, describe  # noqa: PLC0415
    from modelbuild.rules import BUILTIN_RULES  # noqa: PLC0415

    if name in BUILTIN_RULES:
        return "\n".join(rule_lines(describe(builtin_rule(name), name), terminal))
    own = _own_rules()
    if name in own:
        rule = own[name]
        lines = rule_lines(describe(rule.rule_class, name), terminal)
        return "\n".join([*lines, "", f'load it with `load("{rule.file}", "{name}")`'])
    from modelbuild.loading.suggestion import did_you_mean  # noqa: PLC0415

    raise UsageError(
        f"there is no rule `{name}`",
        hint=did_you_mean(name, [*BUILTIN_RULES, *own]) or "`modelbuild help rule` lists the rules",
    )


def rule_lines(rule: RuleDescription, terminal: Terminal) -> list[str]:
    """A rule as plain text."""
    lines = [terminal.paint(rule.name, "bold", terminal.out), *_wrap(rule.summary, "  ")]
    if rule.text:
        for paragraph in rule.text.split("\n\n"):
            lines.append("")
            for item in paragraph.split("\n- "):
                bullet = "- " if item is not paragraph and not item.startswith("- ") else ""
                lines += _wrap(bullet + " ".join(item.split()), "  ")
    lines += ["", "attributes:"]
    for attribute in rule.attributes:
        lines += _attribute_lines(attribute, terminal)
    lines += ["", "attributes of every rule:"]
    for attribute in rule.common_attributes:
        lines += _attribute_lines(attribute, terminal)
    if rule.example:
        lines += ["", "example:", *(f"  {line}".rstrip() for line in rule.example.split("\n"))]
    lines += ["", f"two runs of its actions are the same: {_DETERMINISM[rule.determinism]}"]
    return lines


_DETERMINISM = {"bitwise": "bit for bit", "numeric": "up to rounding", "none": "not promised"}


def _attribute_lines(attribute: AttributeDescription, terminal: Terminal) -> list[str]:
    name = terminal.paint(attribute.name, "bold", terminal.out)
    required = attribute.default is None
    default = "required" if required else f"default {attribute.default}"
    if attribute.default == "None":
        default = "optional"
    return [f"  {name}: {attribute.type}; {default}", *_wrap(attribute.text, "      ")]


def _wrap(text: str, indent: str) -> list[str]:
    options = {"initial_indent": indent, "subsequent_indent": indent, "break_long_words": False}
    return textwrap.wrap(text, _WIDTH, break_on_hyphens=False, **options) if text else []  # type: ignore[arg-type]


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
