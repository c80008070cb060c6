"""ReadyQueue: the actions that wait for nothing any more, and which of them is the most urgent."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Sequence

from modelbuild.actions.action import Action
from modelbuild.actions.graph import ActionGraph


class ReadyQueue:
    """Hands out actions once all that they depend on is released.

    known: actions that nobody waits for. duration_s: what an action will probably take, in seconds.
    """

    def __init__(
        self, graph: ActionGraph, known: Container[int], duration_s: Callable[[Action], float]
    ) -> None:
        self._dependents: dict[int, list[int]] = {}
        self._waiting: dict[int, int] = {}
        self._heights: dict[int, float] = {}
        for index, dependencies in enumerate(graph.dependencies):
            if index in known:
                continue
            needed = [each for each in dependencies if each not in known]
            for each in needed:
                self._dependents.setdefault(each, []).append(index)
            self._waiting[index] = len(needed)
        for index in reversed(self._waiting):  # Dependents come after what they depend on.
            above = max((self._heights[each] for each in self.dependents(index)), default=0.0)
            self._heights[index] = above + duration_s(graph.actions[index])
        self._ready = [(-self._heights[index], index) for index, count in self._waiting.items() if not count]
        heapq.heapify(self._ready)

    def __len__(self) -> int:
        """How many are ready."""
        return len(self._ready)

    def pop(self) -> int:
        """Take out the action that the longest rest of the build waits for."""
        return heapq.heappop(self._ready)[1]

    def release(self, index: int) -> None:
        """The action is made: what waited for it alone is ready."""
        for dependent in self.dependents(index):
            self._waiting[dependent] -= 1
            if self._waiting[dependent] == 0:
                heapq.heappush(self._ready, (-self._heights[dependent], dependent))

    def clear(self) -> None:
        """Hand out nothing that is ready now."""
        self._ready.clear()

    def height(self, index: int) -> float:
        """Seconds from the start of an action to the end of the build, along the longest path."""
        return self._heights[index]

    def dependents(self, index: int) -> Sequence[int]:
        """The actions that wait for this one."""
        return self._dependents.get(index, ())
