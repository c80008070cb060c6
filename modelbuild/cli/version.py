"""`modelbuild version`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from modelbuild import __version__
from modelbuild.cli.terminal import Terminal

SUMMARY = "Print the version"
USAGE = ""


def configure(_parser: ArgumentParser) -> None:
    """No flags of its own."""


def run(_args: Namespace, terminal: Terminal) -> int:
    """Print it."""
    terminal.write(f"modelbuild {__version__}")
    return 0
