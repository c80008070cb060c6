"""Events: everything that happens in a build, as data. Console, profile and reports read nothing else.

`--events FILE` writes one object a line, `{"schema": 1, "event": "<name>", "time_s": <since start>, ...}`.
A field may be added within a schema version; one is never renamed or removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

EVENTS_SCHEMA = 1

Outcome = Literal["executed", "local_hit", "remote_hit", "unchanged", "failed"]


@dataclass(frozen=True, slots=True)
class Event:
    """The base of every event. `time_s`: seconds since the build started."""

    time_s: float


@dataclass(frozen=True, slots=True)
class BuildStarted(Event):
    """The first event. `command`: `build`, `test`, `run`."""

    command: str
    patterns: tuple[str, ...]
    jobs: int
    version: str


@dataclass(frozen=True, slots=True)
class AnalysisFinished(Event):
    """The graph is known. `from_snapshot`: no BUILD file had to be evaluated."""

    packages: int
    targets: int
    actions: int
    from_snapshot: bool


@dataclass(frozen=True, slots=True)
class ActionStarted(Event):
    """An action begins to run; cached ones are only finished. estimate_s: from its last run, or None."""

    action: int
    label: str
    mnemonic: str
    progress: str
    reason: str
    estimate_s: float | None


@dataclass(frozen=True, slots=True)
class ActionProgress(Event):
    """The tool reports: `step` of `total` `unit`s; metrics such as loss or tokens_per_s."""

    action: int
    step: int
    total: int
    unit: str
    metrics: Mapping[str, float | str]


@dataclass(frozen=True, slots=True)
class ActionFinished(Event):
    """An action is done. key: its sha256. reason: why it ran, as `explain` says; empty for hits.

    error, log: for `failed` only: the message, and the path of the whole log.
    dependencies: action numbers it waited for, for critical paths.
    """

    action: int
    label: str
    mnemonic: str
    key: str
    result: Outcome
    duration_s: float
    peak_rss_bytes: int
    reason: str = ""
    error: str = ""
    log: str = ""
    dependencies: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetFinished(Event):
    """A requested target is built or not. files: paths relative to the workspace."""

    label: str
    built: bool
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TargetSkipped(Event):
    """A target that a pattern names cannot be built for the platform. reason: what the platform lacks."""

    label: str
    reason: str


@dataclass(frozen=True, slots=True)
class TestFinished(Event):
    """A test's verdict is known. cached: its action did not run in this build."""

    __test__: ClassVar[bool] = False  # Not a pytest class.

    label: str
    passed: bool
    summary: str
    cached: bool


@dataclass(frozen=True, slots=True)
class Message(Event):
    """Something a person should read: a warning or a note."""

    level: Literal["info", "note", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class BuildFinished(Event):
    """The last event. targets: how many requested targets are built, told one by one or not."""

    executed: int
    local_hits: int
    remote_hits: int
    unchanged: int
    failed: int
    wall_s: float
    exit_code: int
    critical_path_s: float = 0.0
    skipped: tuple[str, ...] = field(default=())
    """Requested targets that were not built."""
    targets: int = 0
    unreached: tuple[str, ...] = field(default=())
    """Those of `skipped` of which nothing failed: the build stopped before it came to them."""


EventSink = Callable[[Event], None]
Clock = Callable[[], float]
"""Seconds since the build started."""


def event_name(event: type[Event]) -> str:
    """`ActionFinished` -> `action_finished`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", event.__name__).lower()


def to_json(event: Event) -> dict[str, Any]:
    """The object that `--events` writes."""
    return {"schema": EVENTS_SCHEMA, "event": event_name(type(event)), **asdict(event)}
