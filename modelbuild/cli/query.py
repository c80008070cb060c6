"""`modelbuild query`: questions about the target graph."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from modelbuild.cli.command_line import add_workspace_flags
from modelbuild.cli.invocation import open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import UsageError

SUMMARY = "Ask about the target graph"
USAGE = "[flags] EXPRESSION"

_FORMATS = ("label", "label_kind", "location", "package", "build", "graph", "minrank", "maxrank", "json")


def configure(parser: ArgumentParser) -> None:
    """An expression of Bazel's query language."""
    parser.add_argument(
        "expression",
        nargs="*",
        metavar="EXPRESSION",
        help="such as `deps(//targets:student)`, `rdeps(//..., //x, 1)`, `kind('quantize rule', //...)`; "
        "functions: allpaths allrdeps attr buildfiles deps filter kind labels rdeps siblings some somepath "
        "tests; operators: + - ^, let x = e in e, set(...)",
    )
    parser.add_argument(
        "-o", "--output", choices=_FORMATS, default="label", help="how the answer is printed (default: label)"
    )
    parser.add_argument("--json", dest="output", action="store_const", const="json", help="--output json")
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Load what the expression names, answer it, print the answer."""
    from modelbuild.query.evaluate import evaluate, target_patterns  # noqa: PLC0415
    from modelbuild.query.grammar import parse  # noqa: PLC0415

    text = " ".join([*args.expression, *args.rest])
    if not text.strip():
        raise UsageError("there is no query", hint="`modelbuild query //...` lists all targets")
    expression = parse(text)
    patterns = list(target_patterns(expression))
    invocation = open_invocation(args, terminal)

    from modelbuild.query.output import FORMATS  # noqa: PLC0415
    from modelbuild.query.universe import load_universe  # noqa: PLC0415

    graph = load_universe(invocation.workspace, patterns, invocation.working_package)
    terminal.write(FORMATS[args.output](evaluate(expression, graph), graph))
    return 0
