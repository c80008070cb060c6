"""The scheduler: suspending, over resolved keys ("Build systems a la carte", Mokhov et al. 2018).

An action is looked at once the digests of all its inputs are known. Its key is made of them, so equal bytes
from a rerun producer give an equal key and a hit: early cutoff needs no case of its own.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeGuard

from modelbuild.actions.action import Action, Resources
from modelbuild.actions.graph import ActionGraph
from modelbuild.actions.key import ActionKey, action_key
from modelbuild.actions.result import ActionResult, OutputDigest, StandingResult
from modelbuild.errors import ActionFailed, CacheError, EnvironmentFailure, Location, ModelbuildError
from modelbuild.events import ActionFinished, ActionProgress, ActionStarted, Event, Outcome
from modelbuild.execution.ready_queue import ReadyQueue
from modelbuild.execution.resources import ResourcePool
from modelbuild.execution.step import Step, StepCancelled, StepOutcome
from modelbuild.execution.world import Settled, World

DEFAULT_RAM = Resources().ram


@dataclass(frozen=True, slots=True)
class _Running:
    action: Action
    key: ActionKey
    inputs: Mapping[str, OutputDigest]
    reason: str
    resources: Resources


_Message = tuple[int, StepOutcome | Exception | ActionProgress]


class Scheduler:
    """Settles every action of a graph, running what no cache holds. Used once."""

    def __init__(
        self,
        graph: ActionGraph,
        *,
        world: World,
        step: Step,
        resources: ResourcePool,
        jobs: int,
        keep_going: bool = False,
        rerun: Callable[[Action], bool] = lambda _: False,
        salt: str = "",
        clock: Callable[[], float],
        sink: Callable[[Event], None],
        known: Mapping[int, StandingResult] | None = None,
    ) -> None:
        """known: actions that need no look, because nothing they rest on has changed.

        rerun: actions to run although a cache holds their result (`build --check`).
        """
        self._graph = graph
        self._world = world
        self._step = step
        self._pool = resources
        self._jobs = jobs
        self._keep_going = keep_going
        self._rerun = rerun
        self._salt = salt
        self._clock = clock
        self._sink = sink
        self._known = known or {}
        self.settled: dict[int, Settled] = {}
        self.finish_times: dict[int, float] = {}
        """Length in seconds of the longest chain of executed actions that ends in each."""
        self._made: dict[str, OutputDigest] = {}
        self._running: dict[int, _Running] = {}
        self._same_key: dict[str, list[tuple[int, Mapping[str, OutputDigest]]]] = {}
        self._messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._seen: list[_Message] = []
        self._cancelled = threading.Event()
        self._stopping = False
        self._warmed: set[int] = set()
        self._ready = ReadyQueue(graph, self._known, self._expected_s)

    def run(self) -> None:
        """Settle everything that can be. Raises what is no action's fault: a full disk, Ctrl-C."""
        ready = self._ready
        parked: list[tuple[int, _Running]] = []
        switch_interval = sys.getswitchinterval()
        # A worker that wants the interpreter gets it within half a millisecond.
        sys.setswitchinterval(0.0005)
        threads = ThreadPoolExecutor(self._jobs, thread_name_prefix="action")
        try:
            while True:
                for index in self._received():
                    self._release(index)
                if self._stopping:
                    ready.clear()
                    parked.clear()
                # Look at what is ready before anything starts: it may be more urgent than what is parked.
                looks = self._jobs
                while ready and looks and len(parked) < 2 * self._jobs:
                    looks -= 1
                    index = ready.pop()
                    finished, task = self._look(index)
                    if task is not None:
                        parked.append((index, task))
                        self._warm(index)
                    if finished:
                        self._release(index)
                parked = self._start_parked(threads, parked)
                if ready and len(parked) < 2 * self._jobs:
                    continue
                if self._running:
                    self._seen.append(self._messages.get())
                elif not parked and not ready:
                    break
        except BaseException:
            self.cancel()
            raise
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            sys.setswitchinterval(switch_interval)

    def cancel(self) -> None:
        """End everything that runs; what was not finished is not cached."""
        self._cancelled.set()

    def _expected_s(self, action: Action) -> float:
        estimate = self._world.estimate(action)
        return estimate.duration_s if estimate else 1.0

    def _release(self, index: int) -> None:
        if self.settled[index].result is not None:
            self._ready.release(index)

    def _warm(self, index: int) -> None:
        """What depends on an action that runs will probably run, too."""
        todo = [index]
        while todo:
            each = todo.pop()
            if each not in self._warmed:
                self._warmed.add(each)
                self._world.warm(self._graph.actions[each])
                todo.extend(self._ready.dependents(each))

    def _input_digests(self, action: Action) -> dict[str, OutputDigest]:
        digests = {}
        for name, artifact in action.inputs.items():
            if artifact.is_source:
                digests[name] = self._world.source(artifact.path)
            else:
                digests[name] = self._digest_of(artifact.path)
        return digests

    def _digest_of(self, path: str) -> OutputDigest:
        if path not in self._made:
            producer = self._graph.producers[path]
            self._remember(self._graph.actions[producer], self._known[producer].result)
        return self._made[path]

    def _remember(self, action: Action, result: ActionResult) -> None:
        for name, artifact in action.outputs.items():
            self._made[artifact.path] = result.outputs[name]

    def _look(self, index: int) -> tuple[bool, _Running | None]:
        """Settle action `index` from a cache, or say what has to run."""
        action = self._graph.actions[index]
        try:
            inputs = self._input_digests(action)
            identity = self._world.tool_identity(action)
        except ModelbuildError as error:
            self._fail(index, ActionKey("", {}), error, {})
            return True, None
        key = action_key(action, identity, inputs, self._salt)
        rerun = self._rerun(action)
        result = None if rerun else self._world.lookup(key.sha256)
        if result is not None:
            self._hit(index, action, key, inputs, result)
            return True, None
        if key.sha256 in self._same_key:
            self._same_key[key.sha256].append((index, inputs))
            return False, None
        self._same_key[key.sha256] = []
        reason = "checked: rerun to compare" if rerun else self._world.reason(action, key, inputs)
        return False, _Running(action, key, inputs, reason, self._resources(action))

    def _resources(self, action: Action) -> Resources:
        """What to reserve: a measured peak takes the place of a default that nobody chose."""
        estimate = self._world.estimate(action)
        if estimate and estimate.peak_rss_bytes and action.resources.ram == DEFAULT_RAM:
            return replace(action.resources, ram=int(estimate.peak_rss_bytes * 1.1))
        return action.resources

    def _start_parked(
        self, threads: ThreadPoolExecutor, parked: list[tuple[int, _Running]]
    ) -> list[tuple[int, _Running]]:
        left = []
        for index, task in sorted(parked, key=lambda entry: (-self._ready.height(entry[0]), entry[0])):
            if len(self._running) < self._jobs and self._pool.try_acquire(task.resources):
                self._running[index] = task
                estimate = self._world.estimate(task.action)
                self._sink(
                    ActionStarted(
                        self._clock(),
                        index,
                        str(task.action.owner),
                        task.action.mnemonic,
                        task.action.progress,
                        task.reason,
                        estimate.duration_s if estimate else None,
                    )
                )
                threads.submit(self._work, index, task)
            else:
                left.append((index, task))
        return left

    def _work(self, index: int, task: _Running) -> None:
        """Runs in a worker thread; reports through the queue only."""

        def progress(step: int, total: int, unit: str, metrics: Mapping[str, float | str]) -> None:
            self._messages.put((index, ActionProgress(self._clock(), index, step, total, unit, metrics)))

        try:
            check = self._rerun(task.action)
            outcome = self._step.run(
                task.action, task.key.sha256, task.inputs, progress, self._cancelled, check=check
            )
            self._messages.put((index, outcome))
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which raises or reports it
            self._messages.put((index, error))

    def _received(self) -> list[int]:
        """Handle every message that is there; the actions that they settled."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._seen.append(self._messages.get_nowait())
        seen, self._seen = self._seen, []
        return [index for message in seen for index in self._handle(*message)]

    def _handle(self, index: int, message: StepOutcome | Exception | ActionProgress) -> list[int]:
        if isinstance(message, ActionProgress):
            self._sink(message)
            return []
        task = self._running.pop(index)
        self._pool.release(task.resources)
        twins = self._same_key.pop(task.key.sha256)
        done = [index]
        if isinstance(message, StepOutcome):
            self._finish(index, task, message)
            for twin, inputs in twins:
                self._hit(twin, self._graph.actions[twin], task.key, inputs, message.result)
        elif isinstance(message, StepCancelled):
            return []
        elif _is_one_actions(message):
            self._fail(index, task.key, message, task.inputs)
            for twin, inputs in twins:
                self._fail(twin, task.key, message, inputs)
        else:
            raise message
        return done + [twin for twin, _ in twins]

    def _hit(
        self,
        index: int,
        action: Action,
        key: ActionKey,
        inputs: Mapping[str, OutputDigest],
        result: ActionResult,
    ) -> None:
        outcome: Outcome = "unchanged"
        if not self._world.is_current(action, result):
            outcome = "local_hit"
            self._world.link(action, result)
        self._settle(index, Settled(key, outcome, result), inputs)

    def _finish(self, index: int, task: _Running, outcome: StepOutcome) -> None:
        self._world.link(task.action, outcome.result)
        settled = Settled(task.key, "executed" if outcome.executed else "local_hit", outcome.result)
        self._settle(index, settled, task.inputs, task.reason)

    def _fail(
        self, index: int, key: ActionKey, error: ModelbuildError, inputs: Mapping[str, OutputDigest]
    ) -> None:
        if not self._keep_going:
            self._stopping = True
        error.located(_declaration(self._graph.actions[index]))
        self._settle(index, Settled(key, "failed", None, error), inputs)

    def _settle(
        self,
        index: int,
        settled: Settled,
        inputs: Mapping[str, OutputDigest],
        reason: str = "",
    ) -> None:
        action = self._graph.actions[index]
        self.settled[index] = settled
        if settled.result is not None:
            self._remember(action, settled.result)
        dependencies = self._graph.dependencies[index]
        before = max((self.finish_times.get(d, 0.0) for d in dependencies), default=0.0)
        executed = settled.outcome == "executed"
        duration_s = settled.result.duration_s if executed and settled.result else 0.0
        self.finish_times[index] = before + duration_s
        self._world.settled(action, settled, inputs, reason)
        self._sink(
            ActionFinished(
                self._clock(),
                index,
                str(action.owner),
                action.mnemonic,
                settled.key.sha256,
                settled.outcome,
                duration_s,
                settled.result.peak_rss_bytes if executed and settled.result else 0,
                reason=reason if executed else "",
                error=str(settled.error) if settled.error else "",
                log=getattr(settled.error, "log_path", ""),
                dependencies=dependencies,
            )
        )


def _declaration(action: Action) -> Location | None:
    """The line of the BUILD file that the action comes from."""
    path, _, line = action.declared_at.rpartition(":")
    return Location(path, int(line)) if path and line.isdecimal() else None


def _is_one_actions(error: Exception) -> TypeGuard[ModelbuildError]:
    """Whether `error` concerns one action, and what else runs may finish: hours of it, perhaps.

    A package or a program that is missing does; a full disk or a lost cache concerns all.
    """
    return isinstance(error, ActionFailed) or (
        isinstance(error, EnvironmentFailure) and not isinstance(error, CacheError)
    )
