"""`modelbuild build`, and what `test` and `run` share with it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Literal

from modelbuild.cli.command_line import add_build_flags, add_platform_flags, add_workspace_flags
from modelbuild.cli.console import ConsoleOptions, open_console
from modelbuild.cli.invocation import build_request, open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import ModelbuildError

if TYPE_CHECKING:
    from modelbuild.cli.live_console import Above

SUMMARY = "Build targets"
USAGE = "[flags] TARGET..."


def configure(parser: ArgumentParser) -> None:
    """Target patterns and the flags of a build."""
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="`//pkg:name`, `//pkg/...`, `-//x`")
    add_build_flags(parser)
    add_platform_flags(parser)
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Build."""
    return execute(args, terminal, "build")


def execute(args: Namespace, terminal: Terminal, command: Literal["build", "test"]) -> int:
    """Build or test the targets, show it, and print the result as JSON when asked; gives the exit code."""
    from modelbuild.driver.build import build  # noqa: PLC0415

    invocation = open_invocation(args, terminal)
    request = build_request(args, invocation, command, [*args.targets, *args.rest])
    with open_console(terminal, invocation.root, console_options(args)) as (sink, result):
        try:
            outcome = build(request, sink)
        except ModelbuildError as error:
            if result is not None:
                terminal.write_json(result.document(error.message))
            raise
    if result is not None:
        terminal.write_json(result.document())
    return int(outcome.exit_code)


def console_options(args: Namespace, above: Above | None = None) -> ConsoleOptions:
    """How the flags want the build shown. above: lines to draw over the running actions."""
    return ConsoleOptions(
        quiet=args.quiet,
        verbose=args.verbose,
        json=args.json,
        events=args.events,
        profile=args.profile,
        above=above,
    )
