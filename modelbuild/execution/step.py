"""One action from lock to cache: the part of a build that runs in a worker thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from modelbuild.actions.action import Action
from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.errors import Interrupted

ProgressCallback = Callable[[int, int, str, Mapping[str, float | str]], None]

_LOCK_POLL_S = 0.05


class StepCancelled(Exception):
    """The action was ended before it finished."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """A finished action. executed: False when another process finished it first."""

    result: ActionResult
    executed: bool


class Runner(Protocol):
    """Runs one action; the driver composes it of an executor and the input resolver."""

    def __call__(
        self,
        action: Action,
        key: str,
        inputs: Mapping[str, OutputDigest],
        progress: ProgressCallback,
        cancelled: threading.Event,
    ) -> ActionResult:
        """The result, with all blobs stored. Raises ActionFailed."""


class Locks(Protocol):
    """A lock per action key, across processes."""

    def try_acquire(self, key: str) -> bool:
        """Whether the lock is ours now."""

    def release(self, key: str) -> None:
        """Give it back."""


@dataclass(frozen=True, slots=True)
class Step:
    """Takes the key's lock, looks into the cache again, runs the action and stores its result.

    compare: called with (action, the result that stands, the new one) when an action is rerun to check it;
    raises ActionFailed when they differ. The result that stands is never overwritten.
    """

    runner: Runner
    locks: Locks
    lookup: Callable[[str], ActionResult | None]
    store: Callable[[str, ActionResult], None]
    compare: Callable[[Action, ActionResult, ActionResult], None]

    def run(
        self,
        action: Action,
        key: str,
        inputs: Mapping[str, OutputDigest],
        progress: ProgressCallback,
        cancelled: threading.Event,
        *,
        check: bool = False,
    ) -> StepOutcome:
        """Raises ActionFailed, StepCancelled, or what the machine is to blame for."""

        def run() -> ActionResult:
            try:
                return self.runner(action, key, inputs, progress, cancelled)
            except Interrupted:
                raise StepCancelled from None

        while not self.locks.try_acquire(key):
            if cancelled.wait(_LOCK_POLL_S):
                raise StepCancelled
        try:
            standing = self.lookup(key)
            if standing is not None and not check:
                return StepOutcome(standing, executed=False)
            if cancelled.is_set():
                raise StepCancelled
            started = time.monotonic()
            result = run()
            if check and standing is None:
                # There was nothing to compare with: a second run makes the check worth its name.
                self.store(key, result)
                standing = result
                result = run()
            if standing is not None:
                self.compare(action, standing, result)
                return StepOutcome(
                    ActionResult(
                        standing.outputs, standing.log, time.monotonic() - started, result.peak_rss_bytes
                    ),
                    executed=True,
                )
            self.store(key, result)
            return StepOutcome(result, executed=True)
        finally:
            self.locks.release(key)
