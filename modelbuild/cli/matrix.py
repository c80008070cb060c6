"""`modelbuild matrix`: every artifact for every device, as a table, JSON, Markdown or one HTML page."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from modelbuild.cli.build import console_options
from modelbuild.cli.command_line import add_build_flags, add_platform_flags, add_workspace_flags
from modelbuild.cli.console import open_console
from modelbuild.cli.invocation import build_request, open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import UsageError

SUMMARY = "Build an artifact for every device and show how good each is"
USAGE = "[flags] TARGET"


def configure(parser: ArgumentParser) -> None:
    """One `artifact_matrix`."""
    parser.add_argument("target", nargs="?", metavar="TARGET", help="an `artifact_matrix`")
    group = parser.add_argument_group("matrix flags")
    group.add_argument("--markdown", action="store_true", help="print the table as Markdown on stdout")
    group.add_argument("--html", metavar="FILE", help="write one page with tables, plots and lineage")
    add_build_flags(parser)
    add_platform_flags(parser)
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Build all cells, going on where one fails; exit code 1: one is broken, 3: one is beyond its bounds."""
    from modelbuild.cli.event_files import check_writable, open_for_writing  # noqa: PLC0415
    from modelbuild.cli.matrix_board import MatrixBoard  # noqa: PLC0415
    from modelbuild.cli.matrix_table import document, markdown, plain  # noqa: PLC0415
    from modelbuild.driver.matrix import build_matrix, plan_matrix  # noqa: PLC0415

    if args.json and args.markdown:
        raise UsageError("`--json` and `--markdown` both want stdout")
    invocation = open_invocation(args, terminal)
    request = build_request(args, invocation, "matrix", [args.target] if args.target else [])
    plan = plan_matrix(request, terminal.say)
    if args.html is not None:
        check_writable(args.html, "--html")  # Not after an hour; and a page that is there stays until then.
    board = MatrixBoard(plan)
    options = console_options(args, above=board.rows)
    with open_console(terminal, invocation.root, options) as (sink, _):

        def both(event: object) -> None:
            board.add(event)
            sink(event)  # type: ignore[arg-type]

        outcome = build_matrix(request, plan, both)
    if args.html is not None:
        from modelbuild.cli.matrix_page import page_of  # noqa: PLC0415

        text = page_of(outcome)
        with open_for_writing(args.html, "--html") as page:
            page.write(text)
    if args.json:
        terminal.write_json(document(outcome))
    elif args.markdown:
        terminal.write(markdown(outcome))
    else:
        terminal.write(plain(outcome, terminal))
    return int(outcome.exit_code)
