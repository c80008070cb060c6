"""The scheduler over random graphs, with an in-memory world that writes down what it was asked."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.actions.action import Action, Resources
from modelbuild.actions.graph import ActionGraph, RequestedTarget, make_graph
from modelbuild.actions.key import ActionKey
from modelbuild.actions.result import ActionResult, OutputDigest, StandingResult
from modelbuild.artifact import Artifact
from modelbuild.digest import digest_bytes
from modelbuild.errors import ActionFailed, CacheError
from modelbuild.events import ActionFinished, ActionStarted, Event
from modelbuild.execution.resources import MachineResources, ResourcePool
from modelbuild.execution.scheduler import Scheduler
from modelbuild.execution.step import ProgressCallback, Step
from modelbuild.execution.world import Estimate, Settled
from modelbuild.label import Label
from modelbuild.tool import ShellTool

MACHINE = MachineResources(cpu=4, ram=1 << 30, disk=1 << 30)


class NoLocks:
    """Nobody else builds."""

    def try_acquire(self, key: str) -> bool:
        return True

    def release(self, key: str) -> None:
        pass


@dataclass
class FakeWorld:
    """Sources and cache in dictionaries. An action's output is a digest of its command and inputs."""

    sources: dict[str, str]
    cache: dict[str, ActionResult] = field(default_factory=dict)
    shown: dict[str, OutputDigest] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    full_disk: bool = False
    warmed: set[str] = field(default_factory=set)
    running: int = 0
    most_running: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def source(self, path: str) -> OutputDigest:
        return OutputDigest("file", digest_bytes(self.sources[path].encode()))

    def tool_identity(self, action: Action) -> str:
        return "t" * 64

    def lookup(self, key: str) -> ActionResult | None:
        return self.cache.get(key)

    def is_current(self, action: Action, result: ActionResult) -> bool:
        return all(self.shown.get(a.path) == result.outputs[n] for n, a in action.outputs.items())

    def link(self, action: Action, result: ActionResult) -> None:
        self.shown |= {a.path: result.outputs[n] for n, a in action.outputs.items()}

    def reason(self, action: Action, key: ActionKey, inputs: Mapping[str, OutputDigest]) -> str:
        return "because"

    def settled(
        self, action: Action, settled: Settled, inputs: Mapping[str, OutputDigest], reason: str
    ) -> None:
        self.outcomes[action.primary_output.path] = settled.outcome

    def warm(self, action: Action) -> None:
        self.warmed.add(action.primary_output.path)

    def estimate(self, action: Action) -> Estimate | None:
        return None

    def run(
        self,
        action: Action,
        key: str,
        inputs: Mapping[str, OutputDigest],
        progress: ProgressCallback,
        cancelled: threading.Event,
    ) -> ActionResult:
        with self.guard:
            self.ran.append(action.primary_output.path)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            progress(1, 1, "steps", {})
            if self.full_disk:
                raise CacheError("no space left")
            if action.primary_output.path in self.failing:
                raise ActionFailed(f"`{action.owner}` failed")
            command = str(action.params["command"])
            parts = [] if command == "constant" else [f"{n}={v.digest}" for n, v in sorted(inputs.items())]
            made = OutputDigest("file", digest_bytes("\n".join([command, *parts]).encode()))
            return ActionResult(dict.fromkeys(action.outputs, made), duration_s=0.25)
        finally:
            with self.guard:
                self.running -= 1


def node(index: int, inputs: list[Artifact], command: str = "", **fields: object) -> Action:
    output = Artifact(f"out{index}", "file")
    return Action(
        ShellTool(),
        {"command": command or f"command {index}"},
        {f"i{n}": artifact for n, artifact in enumerate(inputs)},
        {"o": output},
        owner=Label("", "", f"t{index}"),
        **fields,  # type: ignore[arg-type]
    )


def graph_of(actions: list[Action]) -> ActionGraph:
    requested = tuple(RequestedTarget(a.owner, "genrule", tuple(a.outputs.values())) for a in actions)
    return make_graph(actions, requested)


def build(
    world: FakeWorld,
    graph: ActionGraph,
    *,
    jobs: int = 3,
    keep_going: bool = False,
    known: Mapping[int, StandingResult] | None = None,
    events: list[Event] | None = None,
) -> Scheduler:
    world.ran.clear()
    world.outcomes.clear()
    scheduler = Scheduler(
        graph,
        world=world,
        step=Step(
            runner=world.run,
            locks=NoLocks(),
            lookup=world.lookup,
            store=world.cache.__setitem__,
            compare=lambda *_: None,
        ),
        resources=ResourcePool(MACHINE),
        jobs=jobs,
        keep_going=keep_going,
        clock=lambda: 0.0,
        sink=(events if events is not None else []).append,
        known=known,
    )
    scheduler.run()
    return scheduler


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Action], dict[str, str]]:
    """A random DAG of up to 14 actions over up to 4 sources; some commands ignore their inputs."""
    sources = {f"s{i}": draw(st.sampled_from("ab")) for i in range(draw(st.integers(1, 4)))}
    artifacts = [Artifact(path, "source") for path in sources]
    actions: list[Action] = []
    for index in range(draw(st.integers(1, 14))):
        inputs = draw(st.lists(st.sampled_from(artifacts), max_size=3, unique=True))
        actions.append(node(index, inputs, "constant" if draw(st.integers(0, 4)) == 0 else ""))
        artifacts.append(actions[-1].primary_output)
    return actions, sources


@settings(max_examples=150, deadline=None)
@given(graphs(), st.integers(1, 4), st.data())
def test_a_rebuild_equals_a_clean_build_and_runs_what_changed(
    made: tuple[list[Action], dict[str, str]], jobs: int, data: st.DataObject
) -> None:
    actions, sources = made
    graph = graph_of(actions)
    world = FakeWorld(dict(sources))
    build(world, graph, jobs=jobs)
    assert set(world.outcomes.values()) <= {"executed", "local_hit"}

    build(world, graph, jobs=jobs)
    assert world.ran == []
    assert set(world.outcomes.values()) == {"unchanged"}

    before = dict(world.shown)
    path = data.draw(st.sampled_from(sorted(sources)))
    world.sources[path] += "!"
    build(world, graph, jobs=jobs)
    clean = FakeWorld(dict(world.sources))
    build(clean, graph, jobs=jobs)
    assert world.shown == clean.shown
    # Exactly the actions run that have an input with another digest than before.
    changed = {p for p in world.shown if world.shown[p] != before[p]} | {path}
    expected = {a.primary_output.path for a in actions if changed & {i.path for i in a.inputs.values()}}
    assert set(world.ran) <= expected
    assert {world.outcomes[p] for p in set(before) - expected} <= {"unchanged"}

    world.sources = dict(sources)
    build(world, graph, jobs=jobs)
    assert world.ran == []
    assert world.shown == before


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_known_results_change_nothing_but_the_work(
    made: tuple[list[Action], dict[str, str]], data: st.DataObject
) -> None:
    actions, sources = made
    graph = graph_of(actions)
    world = FakeWorld(dict(sources))
    first = build(world, graph)
    path = data.draw(st.sampled_from(sorted(sources)))
    world.sources[path] += "!"
    touched: set[int] = set()
    for index, action in enumerate(graph.actions):
        below = any(d in touched for d in graph.dependencies[index])
        if below or path in {a.path for a in action.inputs.values() if a.is_source}:
            touched.add(index)
    known = {
        index: StandingResult(done.key.sha256, done.result)
        for index, done in first.settled.items()
        if index not in touched and done.result is not None
    }
    build(world, graph, known=known)
    clean = FakeWorld(dict(world.sources))
    build(clean, graph)
    assert world.shown == clean.shown


def test_a_failure_stops_the_build_unless_it_is_to_keep_going() -> None:
    source = Artifact("s", "source")
    bad, good = node(0, [source]), node(1, [source])
    after_bad, after_good = node(2, [bad.primary_output]), node(3, [good.primary_output])
    graph = graph_of([bad, good, after_bad, after_good])
    world = FakeWorld({"s": "x"}, failing={"out0"})
    scheduler = build(world, graph, jobs=1, keep_going=True)
    assert sorted(world.ran) == ["out0", "out1", "out3"]
    assert scheduler.settled[0].outcome == "failed"
    assert 2 not in scheduler.settled

    world = FakeWorld({"s": "x"}, failing={"out0", "out1"})
    build(world, graph, jobs=1)
    assert len(world.ran) == 1


def test_a_failed_action_is_not_cached() -> None:
    graph = graph_of([node(0, [Artifact("s", "source")])])
    world = FakeWorld({"s": "x"}, failing={"out0"})
    build(world, graph)
    assert world.cache == {}
    world.failing.clear()
    build(world, graph)
    assert world.ran == ["out0"]


def test_a_full_disk_ends_the_build() -> None:
    graph = graph_of([node(i, [Artifact("s", "source")]) for i in range(8)])
    world = FakeWorld({"s": "x"}, full_disk=True)
    with pytest.raises(CacheError, match="no space"):
        build(world, graph)
    assert world.cache == {}


def test_actions_with_one_key_run_once() -> None:
    source = Artifact("s", "source")
    twins = [node(i, [source], "same command") for i in range(5)]
    world = FakeWorld({"s": "x"})
    events: list[Event] = []
    build(world, graph_of(twins), events=events)
    assert len(world.ran) == 1
    assert sorted(world.outcomes.values()) == ["executed"] + ["local_hit"] * 4
    assert len({world.shown[f"out{i}"] for i in range(5)}) == 1
    assert sum(isinstance(event, ActionStarted) for event in events) == 1
    assert sum(isinstance(event, ActionFinished) for event in events) == 5


def test_twins_of_a_failure_fail_with_it() -> None:
    source = Artifact("s", "source")
    twins = [node(i, [source], "same command") for i in range(3)]
    world = FakeWorld({"s": "x"}, failing={"out0", "out1", "out2"})
    scheduler = build(world, graph_of(twins))
    assert {done.outcome for done in scheduler.settled.values()} == {"failed"}
    assert len(world.ran) == 1


def test_no_more_run_at_once_than_jobs_and_resources_allow() -> None:
    source = Artifact("s", "source")
    world = FakeWorld({"s": "x"})
    build(world, graph_of([node(i, [source]) for i in range(30)]), jobs=2)
    assert world.most_running <= 2
    world = FakeWorld({"s": "x"})
    large = Resources(cpu=1, ram=MACHINE.ram)
    build(world, graph_of([node(i, [source], resources=large) for i in range(10)]), jobs=4)
    assert world.most_running == 1
    assert len(world.ran) == 10


def test_the_critical_path_is_the_longest_chain_of_executed_actions() -> None:
    first = node(0, [Artifact("s", "source")])
    second = node(1, [first.primary_output])
    aside = node(2, [Artifact("s", "source")])
    scheduler = build(FakeWorld({"s": "x"}), graph_of([first, second, aside]))
    assert max(scheduler.finish_times.values()) == pytest.approx(0.5)


def test_what_will_probably_run_is_warmed_and_nothing_else() -> None:
    first = node(0, [Artifact("s", "source")])
    second = node(1, [first.primary_output])
    aside = node(2, [Artifact("t", "source")])
    graph = graph_of([first, second, aside])
    world = FakeWorld({"s": "x", "t": "y"})
    build(world, graph)
    world.warmed.clear()
    world.sources["s"] = "z"
    build(world, graph)
    assert world.warmed == {"out0", "out1"}
