"""`modelbuild cquery`: `query`, with the configuration of each target."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from modelbuild.cli.command_line import add_workspace_flags
from modelbuild.cli.invocation import open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import UsageError

SUMMARY = "Ask about configured targets"
USAGE = "[flags] EXPRESSION"

_HOST = "host"


def configure(parser: ArgumentParser) -> None:
    """An expression of Bazel's query language."""
    parser.add_argument(
        "expression", nargs="*", metavar="EXPRESSION", help="as for `query`; see `modelbuild help query`"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Each target with the platform it is configured for; files have none, as in Bazel."""
    from modelbuild.query.evaluate import evaluate, target_patterns  # noqa: PLC0415
    from modelbuild.query.grammar import parse  # noqa: PLC0415
    from modelbuild.query.universe import load_universe  # noqa: PLC0415

    text = " ".join([*args.expression, *args.rest])
    if not text.strip():
        raise UsageError("there is no query", hint="`modelbuild cquery //...` lists all targets")
    expression = parse(text)
    invocation = open_invocation(args, terminal)
    graph = load_universe(invocation.workspace, list(target_patterns(expression)), invocation.working_package)
    rows = [
        (
            str(label),
            graph.nodes[label].kind,
            _HOST if graph.nodes[label].is_rule else None,
        )
        for label in evaluate(expression, graph)
    ]
    if args.json:
        document = [{"label": label, "kind": kind, "configuration": where} for label, kind, where in rows]
        terminal.write(json.dumps(document, indent=2))
    else:
        terminal.write("\n".join(f"{label} ({where or 'null'})" for label, _, where in rows))
    return 0
