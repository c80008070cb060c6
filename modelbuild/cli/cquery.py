"""`modelbuild cquery`: `query`, with the configuration of each target."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import replace

from modelbuild.cli.command_line import add_platform_flags, add_workspace_flags
from modelbuild.cli.invocation import build_options, open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import UsageError
from modelbuild.label import Label

SUMMARY = "Ask about configured targets"
USAGE = "[flags] EXPRESSION"

_ANY = "any"
"""What is the same on every platform is there once."""


def configure(parser: ArgumentParser) -> None:
    """An expression of Bazel's query language."""
    parser.add_argument(
        "expression", nargs="*", metavar="EXPRESSION", help="as for `query`; see `modelbuild help query`"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_platform_flags(parser)
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Each target with the platform it is configured for, `any` when it needs none; files have none.

    Branches of a `select` that are not taken are not there.
    """
    from modelbuild.configuration.configure import configure as configure_targets  # noqa: PLC0415
    from modelbuild.loading.load import load_graph  # noqa: PLC0415
    from modelbuild.query.evaluate import evaluate, target_patterns  # noqa: PLC0415
    from modelbuild.query.grammar import parse  # noqa: PLC0415
    from modelbuild.query.universe import query_graph  # noqa: PLC0415

    text = " ".join([*args.expression, *args.rest])
    if not text.strip():
        raise UsageError("there is no query", hint="`modelbuild cquery //...` lists all targets")
    expression = parse(text)
    invocation = open_invocation(args, terminal)
    targets = load_graph(
        invocation.workspace,
        list(target_patterns(expression)),
        working_package=invocation.working_package,
        expand_suites=False,
        options=build_options(args, invocation),
    )
    if args.toolchain_resolution_debug:
        from modelbuild.analysis.analyze import analyze  # noqa: PLC0415 - rules choose, and none has run yet

        analyze(targets, terminal.say)
    platforms: dict[Label, list[str]] = {}
    taken: dict[Label, set[Label]] = {}
    for each in configure_targets(targets).order:
        label = each.target.label
        where = str(each.platform.label) if each.platform and each.key[1] else _ANY
        platforms.setdefault(label, []).append(where)
        taken.setdefault(label, set()).update(each.dependencies, (other for other, _ in each.variants))
    said = replace(targets, roots=None)  # As in `query`: only what BUILD lines say, so no toolchains.
    graph = query_graph(said, invocation.workspace, invocation.working_package, taken)
    rows = [
        (str(label), graph.nodes[label].kind, where)
        for label in evaluate(expression, graph)
        for where in (platforms.get(label, []) if graph.nodes[label].is_rule else [None])
    ]
    if args.json:
        document = [{"label": label, "kind": kind, "configuration": where} for label, kind, where in rows]
        terminal.write(json.dumps(document, indent=2))
    else:
        terminal.write("\n".join(f"{label} ({where or 'null'})" for label, _, where in rows))
    return 0
