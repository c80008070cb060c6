"""Board: what a person watching a build sees, folded from its events. Draws nothing itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from modelbuild.events import (
    ActionFinished,
    ActionProgress,
    ActionStarted,
    AnalysisFinished,
    BuildFinished,
    BuildStarted,
    Event,
    Message,
    TargetFinished,
    TargetSkipped,
    TestFinished,
)


@dataclass
class RunningAction:
    """An action between its start and its end, with its first and its last report of progress."""

    started: ActionStarted
    first: ActionProgress | None = None
    progress: ActionProgress | None = None

    def elapsed_s(self, now_s: float) -> float:
        """Seconds it has been running."""
        return max(now_s - self.started.time_s, 0.0)

    def fraction(self, now_s: float) -> float | None:
        """How much of it is done, 0 to 1: by its own steps, else by its last duration; None if unknown."""
        if self.progress and self.progress.total > 0:
            return min(self.progress.step / self.progress.total, 1.0)
        if self.started.estimate_s:
            return min(self.elapsed_s(now_s) / self.started.estimate_s, 0.99)
        return None

    def remaining_s(self, now_s: float) -> float | None:
        """Seconds it will still take, as far as anyone can know."""
        elapsed = self.elapsed_s(now_s)
        if self.first and self.progress and self.progress.step > self.first.step:
            # From the first report on: what came before it (imports, reading data) says nothing of a step.
            first, last = self.first, self.progress
            step_s = (last.time_s - first.time_s) / (last.step - first.step)
            return max((last.total - last.step) * step_s - (now_s - last.time_s), 0.0)
        if self.started.estimate_s:
            left = self.started.estimate_s - elapsed
            return left if left > 0 else None
        return None


@dataclass
class Board:
    """Counts, running actions, failures and results so far."""

    started: BuildStarted | None = None
    analysis: AnalysisFinished | None = None
    finished: BuildFinished | None = None
    running: dict[int, RunningAction] = field(default_factory=dict)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("executed", "local_hit", "remote_hit", "unchanged", "failed"), 0
        )
    )
    failures: list[ActionFinished] = field(default_factory=list)
    targets: list[TargetFinished] = field(default_factory=list)
    skipped: list[TargetSkipped] = field(default_factory=list)
    tests: list[TestFinished] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    paths_s: dict[int, float] = field(default_factory=dict)
    """Finished action -> seconds of the longest chain of actions that ends with it."""
    critical_path_s: float = 0.0

    def add(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case ActionFinished():
                ran = self.running.pop(event.action, None)
                self.counts[event.result] += 1
                if event.result == "failed":
                    seconds = event.duration_s or (ran.elapsed_s(event.time_s) if ran else 0.0)
                    self.failures.append(replace(event, duration_s=seconds))
                if event.result in ("executed", "failed"):
                    before = (self.paths_s.get(number, 0.0) for number in event.dependencies)
                    path = event.duration_s + max(before, default=0.0)
                    self.paths_s[event.action] = path
                    self.critical_path_s = max(self.critical_path_s, path)
            case ActionProgress():
                running = self.running.get(event.action)
                if running is not None:
                    if running.first is None or running.first.unit != event.unit:
                        running.first = event
                    running.progress = event
            case ActionStarted():
                self.running[event.action] = RunningAction(event)
            case TargetFinished():
                self.targets.append(event)
            case TargetSkipped():
                self.skipped.append(event)
            case TestFinished():
                self.tests.append(event)
            case Message():
                self.messages.append(event)
            case BuildStarted():
                self.started = event
            case AnalysisFinished():
                self.analysis = event
            case BuildFinished():
                self.finished = event
                self.running.clear()
            case _:
                pass

    @property
    def done(self) -> int:
        """Actions that are finished, one way or another."""
        return sum(self.counts.values())

    @property
    def total(self) -> int:
        """Actions of the whole build; what is known so far until analysis is over."""
        known = self.analysis.actions if self.analysis else 0
        return max(known, self.done + len(self.running))

    @property
    def cached(self) -> int:
        """Actions answered by a cache."""
        return self.counts["local_hit"] + self.counts["remote_hit"]
