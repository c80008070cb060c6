"""`modelbuild run`."""

from __future__ import annotations

import errno
from argparse import ArgumentParser, Namespace

from modelbuild.cli.build import console_options
from modelbuild.cli.command_line import add_build_flags, add_platform_flags, add_workspace_flags
from modelbuild.cli.console import open_console
from modelbuild.cli.invocation import build_request, open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import UsageError

SUMMARY = "Build a target and run it"
USAGE = "[flags] TARGET [-- ARGUMENT...]"


def configure(parser: ArgumentParser) -> None:
    """One target, and what follows `--` for its program."""
    parser.add_argument("target", nargs="?", metavar="TARGET", help="a device binary or an executable")
    add_build_flags(parser)
    add_platform_flags(parser)
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Build, then run in the foreground; gives the program's exit code."""
    from modelbuild.driver.run import run as run_target  # noqa: PLC0415

    if args.json:
        raise UsageError("`modelbuild run` leaves stdout to the program, and has no `--json`")
    invocation = open_invocation(args, terminal)
    request = build_request(args, invocation, "run", [args.target] if args.target else [])
    with open_console(terminal, invocation.root, console_options(args)) as (sink, _):
        try:
            return run_target(request, args.rest, sink, terminal.say)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            raise UsageError(
                f"`{args.target}` is no program that this machine can run", notes=(f"{error.filename}",)
            ) from error
