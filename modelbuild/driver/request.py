"""What a command asks the driver for, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modelbuild.actions.graph import RequestedTarget
from modelbuild.errors import ExitCode
from modelbuild.loading.build_options import BuildOptions

if TYPE_CHECKING:
    from modelbuild.execution.package_source import PackageSource

OUTPUT_ROOT = "modelbuild-out"

FEW_TARGETS = 100
"""More requested targets than this are told one by one only when somebody wants details."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One build.

    root: the workspace. working_package: where relative patterns start. cache_dir: absolute.
    jobs: how many actions may run at once; 0: one a core. salt: goes into every key.
    check: rerun the actions of the requested targets and compare. detailed: emit an event even for actions
    that nothing has touched (an events or profile file wants them; a console does not). options: platform and
    toolchains. toolchain_debug: say how each toolchain was chosen. package_source: says where the packages of
    tool environments come from; asked when one has to be made.
    """

    root: Path
    patterns: tuple[str, ...]
    cache_dir: Path
    command: Literal["build", "test", "run"] = "build"
    working_package: str = ""
    jobs: int = 0
    keep_going: bool = False
    check: bool = False
    salt: str = ""
    detailed: bool = False
    options: BuildOptions = field(default_factory=BuildOptions)
    toolchain_debug: bool = False
    package_source: Callable[[], PackageSource] | None = None

    @property
    def output_root(self) -> Path:
        """Where outputs are shown."""
        return self.root / OUTPUT_ROOT

    @property
    def own_paths(self) -> frozenset[str]:
        """What builds themselves make in the workspace."""
        return frozenset((str(self.output_root), str(self.cache_dir)))


@dataclass(frozen=True, slots=True)
class BuildOutcome:
    """How a build ended. failed: action owner -> error text. skipped: targets that were not built."""

    exit_code: ExitCode
    requested: Sequence[RequestedTarget] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
