"""Invocation: the workspace a command is in, its settings, and what flags and environment say about them."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modelbuild.cli.terminal import Terminal
from modelbuild.errors import UsageError
from modelbuild.execution.package_source import package_source
from modelbuild.loading.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from modelbuild.driver.request import BuildRequest
    from modelbuild.loading.build_options import BuildOptions


@dataclass(frozen=True, slots=True)
class Invocation:
    """cache_dir: absolute. working_package: the package of the current directory."""

    workspace: Workspace
    working_package: str
    cache_dir: Path

    @property
    def root(self) -> Path:
        """The workspace root."""
        return Path(self.workspace.root)


def open_invocation(args: Namespace, terminal: Terminal) -> Invocation:
    """The workspace around the current directory. Raises UsageError outside of one.

    The cache is where --cache-dir says, else MODELBUILD_CACHE_DIR, else modelbuild.toml, else `cache/`.
    """
    try:
        here = os.getcwd()
    except OSError:
        raise UsageError("the current directory is gone", hint="cd to one that exists") from None
    workspace = find_workspace(here)
    if args.config:
        workspace = workspace.with_profile(args.config)
    chosen = args.cache_dir or terminal.environment.cache_dir
    cache_dir = os.path.abspath(os.path.expanduser(chosen)) if chosen else workspace.cache_dir
    return Invocation(workspace, workspace.working_package(here), Path(cache_dir))


def build_request(
    args: Namespace,
    invocation: Invocation,
    command: Literal["build", "test", "run", "matrix"],
    patterns: list[str],
) -> BuildRequest:
    """What the flags ask the driver for. Raises UsageError without target patterns."""
    from modelbuild.driver.request import BuildRequest  # noqa: PLC0415

    if not patterns:
        hint = f"`modelbuild {command} //...` takes all of them"
        if command == "run":
            hint = "name one, such as `//targets:drone-int4`"
        elif command == "matrix":
            hint = "`modelbuild query 'kind(artifact_matrix, //...)'` lists matrices"
        raise UsageError(f"`modelbuild {command}` needs a target", hint=hint)
    settings = invocation.workspace.settings
    return BuildRequest(
        root=invocation.root,
        patterns=tuple(patterns),
        cache_dir=invocation.cache_dir,
        command="build" if command == "matrix" else command,
        working_package=invocation.working_package,
        jobs=args.jobs or settings.jobs,
        keep_going=args.keep_going or settings.keep_going,
        check=args.check,
        salt=settings.key_salt,
        detailed=bool(args.events or args.profile),
        options=build_options(args, invocation),
        toolchain_debug=args.toolchain_resolution_debug,
        package_source=lambda: package_source(settings, invocation.root, os.environ),
    )


def build_options(args: Namespace, invocation: Invocation) -> BuildOptions:
    """Platform and toolchains: flags before settings. Raises UsageError for a bad --define."""
    from modelbuild.loading.build_options import BuildOptions  # noqa: PLC0415

    settings = invocation.workspace.settings
    defines: dict[str, str] = {}
    for text in args.define:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"`--define {text}` gives no value", hint="write `--define NAME=VALUE`")
        defines[name] = value
    # As in Bazel: of several flags the last goes before the others.
    extra = [pattern for text in args.extra_toolchains for pattern in text.split(",")][::-1]
    return BuildOptions(
        absolute(args.platform, invocation),
        settings.platform,
        (*(absolute(pattern, invocation) for pattern in extra), *settings.toolchains),
        tuple(sorted(defines.items())),
    )


def absolute(text: str, invocation: Invocation) -> str:
    """A label or pattern as typed in the working directory, `:drone`, in its full form; empty stays empty."""
    if not text or text.startswith(("//", "@")):
        return text
    package = invocation.working_package
    if text.startswith(":"):
        return f"//{package}{text}"
    return f"//{package}/{text}" if package else f"//{text}"


def load_request(args: Namespace, invocation: Invocation, patterns: list[str]) -> BuildRequest:
    """A request that only looks. Raises UsageError without target patterns."""
    from modelbuild.driver.request import BuildRequest  # noqa: PLC0415

    if not patterns:
        raise UsageError("no target is named", hint="name one as `//package:name`, or all of them as `//...`")
    return BuildRequest(
        root=invocation.root,
        patterns=tuple(patterns),
        cache_dir=invocation.cache_dir,
        working_package=invocation.working_package,
        salt=invocation.workspace.settings.key_salt,
        options=build_options(args, invocation),
        toolchain_debug=args.toolchain_resolution_debug,
    )
