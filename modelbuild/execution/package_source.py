"""PackageSource: where the packages of tool environments come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Not part of any key: a lock says what a package is, this says where it is fetched.

    find_links: directories (absolute) and pages with wheels. offline: fetch nothing, use what is in them and
    in the installer's own cache. environment: variables that the installer may see: proxies, indexes.
    """

    find_links: tuple[str, ...] = ()
    offline: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
