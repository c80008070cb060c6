"""Actions come once all that they depend on is released, those first that most of the build waits for."""

from hypothesis import given
from hypothesis import strategies as st

from modelbuild.actions.action import Action
from modelbuild.actions.graph import ActionGraph
from modelbuild.artifact import Artifact
from modelbuild.execution.ready_queue import ReadyQueue
from modelbuild.label import Label
from modelbuild.tool import ShellTool

Dependencies = list[tuple[int, ...]]


def graph_of(dependencies: Dependencies) -> ActionGraph:
    """Action i waits for those in dependencies[i], which come before it."""
    actions = tuple(
        Action(ShellTool(), {}, {}, {"o": Artifact(f"out{i}", "file")}, owner=Label("", "", f"t{i}"))
        for i in range(len(dependencies))
    )
    return ActionGraph(actions, {}, tuple(dependencies), ())


def seconds(action: Action) -> float:
    """t3 takes three seconds."""
    return float(action.owner.name[1:])


@st.composite
def random_dependencies(draw: st.DrawFn) -> Dependencies:
    count = draw(st.integers(0, 12))
    return [tuple(sorted(draw(st.sets(st.integers(0, i - 1))))) if i else () for i in range(count)]


@given(random_dependencies(), st.sets(st.integers(0, 11)))
def test_each_comes_once_after_all_that_it_depends_on(dependencies: Dependencies, known: set[int]) -> None:
    queue = ReadyQueue(graph_of(dependencies), known, seconds)
    released = set(known)
    handed_out = []
    while queue:
        index = queue.pop()
        assert released.issuperset(dependencies[index])
        handed_out.append(index)
        released.add(index)
        queue.release(index)
    assert sorted(handed_out) == [i for i in range(len(dependencies)) if i not in known]


@given(random_dependencies())
def test_the_longest_rest_of_the_build_goes_first(dependencies: Dependencies) -> None:
    graph = graph_of(dependencies)
    queue = ReadyQueue(graph, (), seconds)
    for index, action in enumerate(graph.actions):
        dependents = [i for i, needed in enumerate(dependencies) if index in needed]
        assert list(queue.dependents(index)) == dependents
        assert queue.height(index) == seconds(action) + max(map(queue.height, dependents), default=0.0)
    ready = [queue.height(queue.pop()) for _ in range(len(queue))]
    assert ready == sorted(ready, reverse=True)


def test_what_is_not_released_holds_back_what_waits_for_it() -> None:
    queue = ReadyQueue(graph_of([(), (), (0, 1)]), (), seconds)
    queue.release(queue.pop())
    assert queue.pop() != 2
    assert len(queue) == 0


def test_nothing_is_handed_out_after_clear() -> None:
    queue = ReadyQueue(graph_of([(), ()]), (), seconds)
    queue.clear()
    assert not queue
