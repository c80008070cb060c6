"""`modelbuild affected`: the targets that a change touches."""

from __future__ import annotations

import json
import os
import subprocess
from argparse import ArgumentParser, Namespace
from pathlib import Path

from modelbuild.cli.command_line import add_platform_flags, add_workspace_flags
from modelbuild.cli.invocation import build_options, open_invocation
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import EnvironmentFailure, UsageError

SUMMARY = "List the targets that a change touches"
USAGE = "[flags] (--since REV | FILE...)"


def configure(parser: ArgumentParser) -> None:
    """Files, or a commit to compare with."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="changed, added or deleted files")
    parser.add_argument(
        "--since",
        metavar="REV",
        help="what differs from this commit, uncommitted and untracked files included",
    )
    parser.add_argument(
        "--merge-base", action="store_true", help="compare with where this branch left REV, not with REV"
    )
    parser.add_argument("--tests", action="store_true", help="only tests")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_platform_flags(parser, resolves=False)
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """One label a line; nothing when nothing is affected."""
    from modelbuild.query.affected import affected  # noqa: PLC0415
    from modelbuild.query.universe import load_universe  # noqa: PLC0415

    names = [*args.files, *args.rest]
    if bool(args.since) == bool(names):
        raise UsageError("`modelbuild affected` needs either files or `--since REV`")
    if args.merge_base and not args.since:
        raise UsageError("`--merge-base` needs `--since REV`")
    invocation = open_invocation(args, terminal)
    if args.since:
        files = changed_files(invocation.root, args.since, merge_base=args.merge_base)
    else:
        files = [os.path.relpath(os.path.abspath(name), invocation.root) for name in names]
        outside = [n for n, path in zip(names, files, strict=True) if path.startswith("..")]
        if outside:
            raise UsageError(f"`{outside[0]}` is outside of the workspace `{invocation.root}`")
    labels = []
    if files:
        graph = load_universe(invocation.workspace, ["//..."], options=build_options(args, invocation))
        labels = affected(files, graph, invocation.workspace)
        if args.tests:
            labels = [label for label in labels if graph.nodes[label].is_test]
    if args.json:
        document = {"files": sorted(files), "targets": [str(label) for label in labels]}
        terminal.write(json.dumps(document, indent=2))
    else:
        terminal.write("\n".join(map(str, labels)))
    return 0


def changed_files(root: Path, revision: str, *, merge_base: bool) -> list[str]:
    """Paths below `root` that differ from a commit. Raises UsageError for an unknown one."""
    if revision.startswith("-"):
        raise UsageError(f"`{revision}` is no commit")
    base = revision
    if merge_base:
        base = _git(root, "merge-base", revision, "HEAD").strip()
    changed = _git(root, "diff", "--name-only", "--no-renames", "--relative", "-z", base, "--")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z")
    return sorted({name for name in (changed + untracked).split("\0") if name})


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            errors="surrogateescape",  # a file of any name may have changed
            check=False,
        )
    except FileNotFoundError as error:
        raise EnvironmentFailure("`--since` needs git, which is not installed") from error
    if done.returncode and "not a git repository" in done.stderr.lower():
        raise UsageError(
            f"`--since` compares with a commit, and `{root}` is in no git repository",
            hint="`modelbuild affected FILE...` takes the files themselves",
        )
    if done.returncode:
        lines = [line for line in done.stderr.strip().split("\n") if line]
        raise UsageError(f"`git {arguments[0]}` failed", notes=tuple(lines[:5]))
    return done.stdout
