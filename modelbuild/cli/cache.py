"""`modelbuild cache stats`, `gc` and `verify`."""

from __future__ import annotations

import json
import math
import re
from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from modelbuild.cli import units
from modelbuild.cli.command_line import add_workspace_flags
from modelbuild.cli.invocation import open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import ExitCode, UsageError

SUMMARY = "Show, shrink or verify the local cache"
USAGE = "stats | gc [--max-size SIZE] [--max-age AGE] | verify"

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "k": 10**3, "m": 10**6, "g": 10**9}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "day": 86_400, "days": 86_400, "w": 604_800}
_AMOUNT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$", re.IGNORECASE)


def configure(parser: ArgumentParser) -> None:
    """What to do, and how much to keep."""
    parser.add_argument(
        "action",
        choices=("stats", "gc", "verify"),
        help="stats: what is in it; gc: delete what was not used; verify: hash everything again",
    )
    parser.add_argument("--max-size", metavar="SIZE", help="gc: keep at most this much, such as `20 GB`")
    parser.add_argument("--max-age", metavar="AGE", help="gc: keep what was used since, such as `30d`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Do it; `verify` exits with 4 when it found damage."""
    from modelbuild.cache.local import is_made  # noqa: PLC0415

    if args.action != "gc" and (args.max_size or args.max_age):
        raise UsageError("`--max-size` and `--max-age` are flags of `modelbuild cache gc`")
    invocation = open_invocation(args, terminal)
    root = str(invocation.cache_dir)
    if not is_made(root) and not args.quiet:
        terminal.say(f"there is no cache at `{root}` yet")
    match args.action:
        case "stats":
            return _stats(root, args, terminal)
        case "verify":
            return _verify(root, args, terminal)
        case _:
            default = invocation.workspace.settings.cache_max_size
            return _collect(root, args, terminal, default)


def parse_size(text: str, flag: str = "--max-size") -> int:
    """`20 GB` -> bytes. Raises UsageError."""
    return int(_amount(text, _BYTES, flag, "`500 MB`, `20 GB`, `1.5 TiB`"))


def parse_age(text: str, flag: str = "--max-age") -> float:
    """`30d` -> seconds. Raises UsageError."""
    return _amount(text, _SECONDS, flag, "`12h`, `30d`, `2w`")


def _amount(text: str, known: dict[str, int], flag: str, examples: str) -> float:
    match = _AMOUNT.match(text)
    if match is None or match[2].lower() not in known:
        raise UsageError(f"`{text}` is no value for `{flag}`", hint=f"write it as in {examples}")
    return float(match[1]) * known[match[2].lower()]


def _stats(root: str, args: Namespace, terminal: Terminal) -> int:
    from modelbuild.cache.gc import stats  # noqa: PLC0415

    found = stats(root)
    if args.json:
        by_age = [[None if math.isinf(days) else days, entries] for days, entries in found.by_age]
        terminal.write(json.dumps({"cache": root, **asdict(found), "by_age": by_age}, indent=2))
        return ExitCode.OK
    terminal.write(f"cache:       {root}")
    terminal.write(f"results:     {found.entries:,}")
    terminal.write(f"blobs:       {found.blobs:,} ({units.size(found.bytes)})")
    terminal.write(f"reclaimable: {units.size(found.reclaimable)}")
    terminal.write(f"quarantined: {found.quarantined:,}")
    if found.environments:
        own, shared = units.size(found.environment_bytes), units.size(found.shared_bytes)
        terminal.write(
            f"environments of tools: {found.environments:,} ({own}, and {shared} shared with uv's cache)"
        )
    terminal.write("last used:")
    shown = 0.0
    for days, entries in found.by_age:
        terminal.write(f"  {_age_words(shown, days):<20} {entries:,}")
        shown = days
    return ExitCode.OK


def _age_words(after: float, until: float) -> str:
    """`up to 1 day ago`, `1 to 7 days ago`, `30 days ago or more`."""
    if until == float("inf"):
        return f"{units.count(round(after), 'day')} ago or more"
    if not after:
        return f"up to {units.count(round(until), 'day')} ago"
    return f"{after:g} to {units.count(round(until), 'day')} ago"


def _collect(root: str, args: Namespace, terminal: Terminal, default_size: str) -> int:
    from modelbuild.cache.gc import collect  # noqa: PLC0415

    size = args.max_size or default_size
    report = collect(
        root,
        max_size=parse_size(size) if size else None,
        max_age_s=parse_age(args.max_age) if args.max_age else None,
    )
    if args.json:
        terminal.write(json.dumps({"cache": root, **asdict(report)}, indent=2))
    else:
        what = [units.count(report.entries_removed, "result"), units.count(report.blobs_removed, "blob")]
        if report.environments_removed:
            what.append(units.count(report.environments_removed, "environment"))
        terminal.write(
            f"removed {', '.join(what[:-1])} and {what[-1]}: {units.size(report.bytes_freed)} freed, "
            f"{units.size(report.bytes_kept)} kept"
        )
    return ExitCode.OK


def _verify(root: str, args: Namespace, terminal: Terminal) -> int:
    from modelbuild.cache.gc import verify  # noqa: PLC0415

    def progress(done: int, total: int) -> None:
        if terminal.live and not args.quiet:
            terminal.err.write(f"\r\x1b[Kverifying {done:,} of {units.count(total, 'blob')}")
            terminal.err.write("\r\x1b[K" if done == total else "")
            terminal.err.flush()

    report = verify(root, progress=progress)
    if args.json:
        terminal.write(json.dumps({"cache": root, **asdict(report)}, indent=2))
    else:
        terminal.write(f"verified {units.count(report.blobs, 'blob')} ({units.size(report.bytes)})")
        for name in report.damaged:
            terminal.write(f"damaged, moved to quarantine: {name}")
        for key in report.dropped:
            terminal.write(f"result dropped, its action will run again: {key}")
    return ExitCode.ENVIRONMENT if report.damaged else ExitCode.OK
