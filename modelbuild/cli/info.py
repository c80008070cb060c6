"""`modelbuild info`: versions, paths and what the machine has."""

from __future__ import annotations

import json
import os
import platform
import sys
from argparse import ArgumentParser, Namespace

from modelbuild import __version__
from modelbuild.cli import units
from modelbuild.cli.command_line import add_workspace_flags
from modelbuild.cli.terminal import Terminal
from modelbuild.errors import ModelbuildError, UsageError
from modelbuild.loading.suggestion import did_you_mean

SUMMARY = "Show versions and paths"
USAGE = "[flags] [KEY]"

_TOOL_PACKAGES = (
    "torch", "transformers", "safetensors", "tokenizers", "llmcompressor", "compressed-tensors", "gguf",
    "xllamacpp", "onnx", "onnxruntime", "scikit-learn",
)  # fmt: skip


def configure(parser: ArgumentParser) -> None:
    """One key, or all."""
    parser.add_argument("key", nargs="?", help="print only this one, such as `workspace`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_workspace_flags(parser)


def run(args: Namespace, terminal: Terminal) -> int:
    """Print what is known."""
    facts = _facts(args, terminal)
    packages = _packages() if args.key is None else {}
    if args.key is not None:
        if args.key not in facts:
            raise UsageError(
                f"there is no `{args.key}` in `modelbuild info`",
                hint=did_you_mean(args.key, facts) or f"known: {', '.join(facts)}",
            )
        facts = {args.key: facts[args.key]}
    if args.json:
        terminal.write(json.dumps({**facts, **({"packages": packages} if packages else {})}, indent=2))
    elif args.key is not None:
        terminal.write(str(facts[args.key] or ""))
    else:
        width = max(map(len, facts)) + 2
        for name, value in facts.items():
            shown = units.size(int(value)) if name == "memory_bytes" and value else value
            terminal.write(f"{name + ':':<{width}} {'none' if shown is None else shown}")
        installed = ", ".join(f"{name} {version}" for name, version in packages.items())
        terminal.write(f"{'packages:':<{width}} {installed or 'none of the tools are installed'}")
    return 0


def _facts(args: Namespace, terminal: Terminal) -> dict[str, str | int | None]:
    from modelbuild.cli.invocation import open_invocation  # noqa: PLC0415
    from modelbuild.loading.workspace import OUTPUT_DIRECTORY  # noqa: PLC0415

    workspace = cache = output = None
    try:
        invocation = open_invocation(args, terminal)
        workspace, cache = str(invocation.root), str(invocation.cache_dir)
        output = str(invocation.root / OUTPUT_DIRECTORY)
    except UsageError:
        if args.config or args.key in ("workspace", "cache", "output"):
            raise
    except ModelbuildError as error:
        terminal.say(str(error))  # A wrong modelbuild.toml must not hide the versions.
    return {
        "version": __version__,
        "workspace": workspace,
        "output": output,
        "cache": cache,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _packages() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    found = {}
    for name in _TOOL_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
