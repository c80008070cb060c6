"""Repositories: installed Python packages that hold rules and BUILD files, named `@name` in labels."""

from __future__ import annotations

import os
from functools import cache

from modelbuild.errors import LoadError
from modelbuild.loading.suggestion import did_you_mean
from modelbuild.repositories import BUILTIN_REPOSITORIES

ENTRY_POINT_GROUP = "modelbuild.repositories"


def installed_repositories() -> dict[str, str]:
    """Name -> entry point of the repositories that installed packages provide."""
    from importlib.metadata import entry_points  # noqa: PLC0415  # costs 30 ms, and few workspaces need it

    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


@cache
def repository_module(name: str) -> str:
    """The Python package of repository `name`, as its entry point names it. Raises LoadError."""
    if name in BUILTIN_REPOSITORIES:
        return BUILTIN_REPOSITORIES[name]
    found = installed_repositories()
    if name not in found:
        raise LoadError(
            f"no installed package provides repository `@{name}`",
            hint=did_you_mean(name, {*found, *BUILTIN_REPOSITORIES})
            or f"it declares the entry point group `{ENTRY_POINT_GROUP}`",
        )
    return found[name].partition(":")[0]


@cache
def repository_root(name: str) -> str:
    """The absolute directory of repository `name`. Raises LoadError."""
    from importlib.util import find_spec  # noqa: PLC0415  # as above

    module = repository_module(name)
    try:
        spec = find_spec(module)
    except ImportError:
        spec = None
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise LoadError(f"repository `@{name}` names `{module}`, which is no importable package")
    return os.path.realpath(locations[0])
