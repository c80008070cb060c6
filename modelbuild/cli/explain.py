"""`modelbuild explain`: why a target last ran, or would run now."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from modelbuild.cli import units
from modelbuild.cli.command_line import add_platform_flags, add_workspace_flags
from modelbuild.cli.invocation import load_request, open_invocation
from modelbuild.cli.terminal import Terminal

if TYPE_CHECKING:
    from modelbuild.cache.trace import TraceRow
    from modelbuild.driver.explaining import Explanation

SUMMARY = "Say why a target ran, or would run"
USAGE = "[flags] TARGET..."


def configure(parser: ArgumentParser) -> None:
    """Target patterns."""
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="`//pkg:name`, `//pkg/...`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_platform_flags(parser)
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """One paragraph for each action; runs nothing."""
    from modelbuild.driver.explaining import explain  # noqa: PLC0415

    invocation = open_invocation(args, terminal)
    explanations = explain(load_request(args, invocation, [*args.targets, *args.rest]), terminal.say)
    if args.json:
        terminal.write_json([_row(item) for item in explanations])
        return 0
    if not explanations and not args.quiet:
        terminal.say("the targets have no actions: nothing of them is ever run")
    many = len({item.label for item in explanations}) < len(explanations)
    now = time.time()
    for item in explanations:
        terminal.write("\n".join(explanation_lines(item, now, terminal, name_action=many)))
    return 0


def explanation_lines(
    item: Explanation, now: float, terminal: Terminal, *, name_action: bool = False
) -> Iterator[str]:
    """What would happen now, then what happened last."""
    what = f"{item.label} ({item.mnemonic})" if name_action else item.label
    what = terminal.paint(what, "bold", terminal.out)
    last = item.last
    match item.status:
        case "up_to_date":
            if last is not None and last.outcome == "executed" and last.reason:
                verb = "ran" if last.reason.startswith("never") else "reran"
                yield f"{what} {verb}: {last.reason}"
                yield f"  {_ago(last, now)}; it is up to date"
                return
            yield f"{what} is up to date" + (f": {_last_words(last, now)}" if last else "")
            return
        case "cached":
            yield f"{what} would be restored from the cache: its outputs are not in modelbuild-out"
        case "would_run":
            yield f"{what} would run: {item.reason or 'there is no entry in the cache'}"
        case "depends":
            yield f"{what} waits for `{item.waits_for}`, which would run; equal outputs would leave it alone"
    if last is None:
        yield "  it has never run"
    else:
        yield f"  last: {_last_words(last, now)}" + (f": {last.reason}" if last.reason else "")


def _last_words(last: TraceRow, now: float) -> str:
    """`ran 3 min 12 s ago in 41.2 s`, `taken from the cache 5.0 s ago`."""
    if last.outcome == "executed":
        return f"ran {_ago(last, now)}"
    if last.outcome == "failed":
        return f"failed {_age(last, now)}"
    return f"taken from the cache {_age(last, now)}"


def _ago(last: TraceRow, now: float) -> str:
    where = f" on {last.host}" if last.host else ""
    return f"{_age(last, now)} in {units.duration(last.duration_s)}{where}"


def _age(last: TraceRow, now: float) -> str:
    seconds = max(now - last.time_s, 0)
    return f"{units.days(seconds) if seconds >= 48 * 3600 else units.duration(seconds)} ago"


def _row(item: Explanation) -> dict[str, Any]:
    last = item.last
    return {
        "label": item.label,
        "mnemonic": item.mnemonic,
        "output": item.output,
        "status": item.status,
        "reason": item.reason,
        "waits_for": item.waits_for or None,
        "last": last
        and {
            "outcome": last.outcome,
            "reason": last.reason,
            "key": last.key,
            "components": dict(last.components),
            "time_s": last.time_s,
            "duration_s": last.duration_s,
            "peak_rss_bytes": last.peak_rss_bytes,
            "host": last.host,
        },
    }
