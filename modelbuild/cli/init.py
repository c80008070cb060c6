"""`modelbuild init`: a small workspace that builds."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace

from modelbuild.cli.templates import FIRST_TARGET, TEMPLATES
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import EnvironmentFailure, UsageError

SUMMARY = "Make a workspace that builds"
USAGE = "[--template NAME] [DIR]"


def configure(parser: ArgumentParser) -> None:
    """Where, and which."""
    parser.add_argument("directory", nargs="?", default=".", metavar="DIR", help="made when it is not there")
    parser.add_argument(
        "--template",
        choices=sorted(TEMPLATES),
        default="minimal",
        help="minimal: two shell commands; model: a small model from data to GGUF",
    )


def run(args: Namespace, terminal: Terminal) -> int:
    """Write the files; refuses when one of them is there, and then writes none."""
    if not args.directory:
        raise UsageError("the directory has no name")
    files = TEMPLATES[args.template]
    present = [name for name in files if os.path.lexists(os.path.join(args.directory, name))]
    if present:
        raise UsageError(
            f"`{args.directory}` holds `{present[0]}` already",
            hint="nothing was written; name a new directory",
        )
    try:
        for name, text in files.items():
            path = os.path.join(args.directory, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "x", encoding="utf-8") as stream:
                stream.write(text)
    except OSError as error:
        raise EnvironmentFailure(
            f"`{args.directory}` cannot be written", notes=(error.strerror or str(error),)
        ) from error
    if not args.quiet:
        terminal.say(f"wrote {', '.join(files)}\n\nnext:")
        if os.path.realpath(args.directory) != os.getcwd():
            terminal.say(f"  cd {args.directory}")
        terminal.say(f"  modelbuild build {FIRST_TARGET[args.template]}")
    return 0
