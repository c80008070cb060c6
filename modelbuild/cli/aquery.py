"""`modelbuild aquery`: the actions of targets."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from modelbuild.cli import units
from modelbuild.cli.command_line import add_platform_flags, add_workspace_flags
from modelbuild.cli.invocation import load_request, open_invocation
from modelbuild.cli.terminal import Terminal

if TYPE_CHECKING:
    from modelbuild.actions.action import Action
    from modelbuild.cli.invocation import Invocation
    from modelbuild.label import Label
    from modelbuild.runner import Runner

SUMMARY = "Show the actions of targets"
USAGE = "[flags] TARGET..."

_LONG = 300


def configure(parser: ArgumentParser) -> None:
    """Target patterns."""
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="`//pkg:name`, `//pkg/...`, or an expression as for `query`: `deps(//pkg:name)`",
    )
    parser.add_argument("--deps", action="store_true", help="also the actions of what the targets need")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_platform_flags(parser)
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """One paragraph for each action, producers first."""
    from modelbuild.driver.analysis import load_and_analyze  # noqa: PLC0415

    invocation = open_invocation(args, terminal)
    words = [*args.targets, *args.rest]
    asked = _Asked(words, invocation) if any("(" in word for word in words) else None
    targets, analysis = load_and_analyze(
        load_request(args, invocation, asked.patterns if asked else words), terminal.say
    )
    graph = analysis.graph
    requested = asked.labels() if asked else targets.requested
    wanted = {targets.generated.get(label, label) for label in requested}
    actions = [action for action in graph.actions if args.deps or action.owner in wanted]
    if args.json:
        terminal.write_json([_row(action) for action in actions])
        return 0
    blocks = ("\n".join(_lines(action, terminal)) for action in actions)
    terminal.write("\n\n".join(blocks))
    return 0


class _Asked:
    """An expression of the query language, and the patterns that it names."""

    def __init__(self, words: Sequence[str], invocation: Invocation) -> None:
        from modelbuild.query.evaluate import target_patterns  # noqa: PLC0415
        from modelbuild.query.grammar import parse  # noqa: PLC0415

        self._expression = parse(" ".join(words))
        self._invocation = invocation
        self.patterns = list(target_patterns(self._expression))

    def labels(self) -> Sequence[Label]:
        """What it stands for."""
        from modelbuild.query.evaluate import evaluate  # noqa: PLC0415
        from modelbuild.query.universe import load_universe  # noqa: PLC0415

        invocation = self._invocation
        graph = load_universe(invocation.workspace, self.patterns, invocation.working_package)
        return evaluate(self._expression, graph)


def _lines(action: Action, terminal: Terminal) -> Iterator[str]:
    row = _row(action)
    head = f"{action.mnemonic} {action.owner}"
    yield terminal.paint(head, "bold", terminal.out)
    yield f"  tool: {_tool_words(row['tool'])}"
    for name, value in action.params.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        shown = text if len(text) <= _LONG else f"{text[:_LONG]}… ({len(text):,} characters)"
        yield f"  param {name}: {shown}"
    for name, artifact in action.inputs.items():
        yield f"  input {artifact}" if name == str(artifact) else f"  input {name}: {artifact}"
    for name, artifact in action.outputs.items():
        yield f"  output {artifact}" if name == str(artifact) else f"  output {name}: {artifact}"
    if action.platform:
        yield f"  platform: {', '.join(action.platform)}"
    if action.runner:
        yield f"  runner: {action.runner.kind}, {action.runner.cpu} {action.runner.address}".rstrip()
    resources = action.resources
    memory = units.size(resources.ram)
    yield f"  threads: {action.threads}; cpu: {resources.cpu:g}; memory: {memory}; {action.determinism}"


def _tool_words(tool: dict[str, Any]) -> str:
    words = [tool.get("source", tool["kind"])]
    if tool.get("distributions"):
        words.append(f"with {', '.join(tool['distributions'])}")
    return " ".join(words)


def _row(action: Action) -> dict[str, Any]:
    kind = type(action.tool).__name__.removesuffix("Tool").lower()
    detail = {field.name: getattr(action.tool, field.name) for field in fields(action.tool)}
    plain = {name: list(v) if isinstance(v, tuple) else str(v) for name, v in detail.items()}
    resources = action.resources
    return {
        "owner": str(action.owner),
        "mnemonic": action.mnemonic,
        "tool": {"kind": kind, **plain},
        "params": dict(action.params),
        "inputs": {name: str(artifact) for name, artifact in action.inputs.items()},
        "outputs": {name: str(artifact) for name, artifact in action.outputs.items()},
        "platform": list(action.platform),
        "threads": action.threads,
        "determinism": action.determinism,
        "resumable": action.resumable,
        "runner": _runner(action.runner) if action.runner else None,
        "resources": {field.name: getattr(resources, field.name) for field in fields(resources)},
    }


def _runner(runner: Runner) -> dict[str, str]:
    sysroot = str(runner.sysroot) if runner.sysroot else ""
    return {"kind": runner.kind, "cpu": runner.cpu, "sysroot": sysroot, "address": runner.address}
