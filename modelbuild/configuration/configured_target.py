"""Configured targets: what configuration hands to analysis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelbuild.label import Label
from modelbuild.loading.package import Target, TargetGraph
from modelbuild.platform import PlatformInfo

ConfiguredKey = tuple[Label, Label | None]
"""A target or file, and the platform it is for; None when nothing of it depends on a platform."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfiguredTarget:
    """A target for one platform, or for all of them.

    attributes: without selects. dependencies: label -> what it leads to. variants: the same for attributes
    that are split over platforms, by (label, platform). toolchains: `toolchain` targets it may be given.
    incompatible: why it cannot be built for the platform; empty when it can.
    prefix: of its outputs below modelbuild-out, such as `@toolchains/platforms/drone/`.
    """

    target: Target
    platform: PlatformInfo | None
    attributes: Mapping[str, Any] = field(repr=False)
    dependencies: Mapping[Label, ConfiguredKey] = field(repr=False)
    variants: Mapping[tuple[Label, Label], ConfiguredKey] = field(default_factory=dict, repr=False)
    toolchains: tuple[ConfiguredKey, ...] = ()
    incompatible: str = ""
    prefix: str = ""
    key: ConfiguredKey = field(default=(Label("", "", "?"), None))

    @property
    def needed(self) -> list[ConfiguredKey]:
        """What is analysed before it. No toolchain type depends on a platform."""
        types = [(label, None) for label in self.target.toolchain_types]
        return [*self.dependencies.values(), *self.variants.values(), *types, *self.toolchains]


@dataclass(frozen=True, slots=True, eq=False)
class ConfiguredTargetGraph:
    """Everything that the requested targets need, each for the platforms it is needed for.

    order: dependencies first. requested: the label that was asked for -> what it leads to. host: the machine
    that builds; None when nothing depends on platforms. skipped: requested by a pattern, with the reason.
    unbuildable: requested, and an error of itself or of what it needs took it away.
    """

    order: tuple[ConfiguredTarget, ...] = field(repr=False)
    requested: tuple[tuple[Label, ConfiguredKey], ...]
    targets: TargetGraph = field(repr=False)
    host: PlatformInfo | None = None
    skipped: tuple[tuple[Label, str], ...] = ()
    unbuildable: tuple[Label, ...] = ()
