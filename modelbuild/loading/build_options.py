"""Build options: what the command line and modelbuild.toml say about platforms and toolchains."""

from __future__ import annotations

from dataclasses import dataclass

HOST_PLATFORM = "@platforms//host:host"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Part of what a request means.

    platform: what to build for; empty: default_platform. default_platform: of modelbuild.toml; empty: the
    machine that builds. toolchains: patterns of `toolchain` targets, preferred ones first. defines: variables
    that conditions ask for, sorted by name.
    """

    platform: str = ""
    default_platform: str = ""
    toolchains: tuple[str, ...] = ()
    defines: tuple[tuple[str, str], ...] = ()
