"""`modelbuild test`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from modelbuild.cli import build
from modelbuild.cli.terminal import Terminal

SUMMARY = "Build and run tests and gates"
USAGE = "[flags] TARGET..."


def configure(parser: ArgumentParser) -> None:
    """The flags of a build."""
    build.configure(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Build the tests; exit code 3 when a verdict is that one did not pass."""
    return build.execute(args, terminal, "test")
