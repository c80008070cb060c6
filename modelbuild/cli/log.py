"""`modelbuild log`: what the last run of a target wrote."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from modelbuild.cli.command_line import add_workspace_flags
from modelbuild.cli.invocation import open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import EnvironmentFailure, UsageError
from modelbuild.loading.patterns import parse_pattern

if TYPE_CHECKING:
    from modelbuild.cache.trace import TraceRow

SUMMARY = "Show the log of a target's last run"
USAGE = "[flags] TARGET"


def configure(parser: ArgumentParser) -> None:
    """One target."""
    parser.add_argument("target", nargs="?", metavar="TARGET", help="`//pkg:name`")
    parser.add_argument("--action", metavar="MNEMONIC", help="only the log of this kind of action")
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """The log of each action of the target, from its last run that executed. Needs no BUILD file."""
    from modelbuild.cache.local import LocalCache, is_made  # noqa: PLC0415

    invocation = open_invocation(args, terminal)
    if not args.target:
        raise UsageError("no target is named", hint="name one as `//package:name`")
    pattern = parse_pattern(args.target, invocation.working_package, invocation.workspace.is_package)
    if pattern.kind != "target" or pattern.negative:
        raise UsageError(f"`modelbuild log` takes one target, and `{args.target}` may be several")
    label = str(pattern.label)
    if not is_made(invocation.cache_dir):
        raise _unknown(label)
    with contextlib.closing(LocalCache(invocation.cache_dir, invocation.root)) as cache:
        latest: dict[str, TraceRow] = {}
        for row in cache.trace.history(label):
            if args.action in (None, row.mnemonic):
                latest.setdefault(row.output_path, row)
        if not latest:
            raise _unknown(label)
        for row in reversed(latest.values()):
            if len(latest) > 1:
                terminal.say(f"{row.mnemonic} {row.output_path}:")
            if row.result is None:
                terminal.write(_failed_log(cache.log_path(row.key), label))
                continue
            if row.result.log is None:
                terminal.say(f"the last run of `{label}` ({row.mnemonic}) wrote nothing")
                continue
            try:
                with cache.blobs.open(row.result.log) as stream:
                    terminal.write(stream.read().decode("utf-8", "replace"))
            except EnvironmentFailure as error:
                error.hint = "the cache has let go of it; `modelbuild build --check` would run it again"
                raise
    return 0


def _unknown(label: str) -> UsageError:
    return UsageError(f"no run of `{label}` is known here", hint=f"`modelbuild build {label}` runs it")


def _failed_log(path: str, label: str) -> str:
    """What an action said before it failed; its log lies in the cache until the action succeeds."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        raise UsageError(
            f"the log of the failed run of `{label}` is gone",
            hint=f"`modelbuild build {label}` runs it again",
        ) from None
