"""Execution of a request that is not up to date: plan, schedule, remember."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from modelbuild.actions.action import Action
from modelbuild.actions.graph import RequestedTarget
from modelbuild.cache.local import LocalCache
from modelbuild.driver.checking import compare_results
from modelbuild.driver.graph_codec import encode_graph
from modelbuild.driver.plan import Plan, fresh_plan, stored_plan
from modelbuild.driver.preflight import refuse_oversized
from modelbuild.driver.request import FEW_TARGETS, BuildOutcome, BuildRequest
from modelbuild.driver.snapshot import Difference, Facts, SnapshotFiles, new_generation
from modelbuild.driver.stamp import Stamp, stamp
from modelbuild.driver.verdict import report_verdicts
from modelbuild.driver.world import BuildWorld
from modelbuild.errors import CacheError, ExitCode
from modelbuild.events import (
    ActionFinished,
    AnalysisFinished,
    BuildFinished,
    Clock,
    Event,
    EventSink,
    Message,
    TargetFinished,
    TargetSkipped,
)
from modelbuild.execution.environment import ToolIdentities
from modelbuild.execution.local import LocalExecutor
from modelbuild.execution.output_tree import OutputTree
from modelbuild.execution.resources import ResourcePool, measure_machine
from modelbuild.execution.scheduler import Scheduler
from modelbuild.execution.step import Step
from modelbuild.execution.tool_environment import ToolEnvironments

_KEEP_SAFE_S = 5.0


def execute(
    request: BuildRequest,
    files: SnapshotFiles,
    facts: Facts | None,
    difference: Difference,
    sink: EventSink,
    clock: Clock,
) -> BuildOutcome:
    """Settle every action that is not known to stand, and report."""
    with LocalCache.open(request.cache_dir, request.root) as cache:
        plan = stored_plan(files, facts, difference) if facts and not difference.loading else None
        from_snapshot = plan is not None
        if plan is None:
            plan = fresh_plan(request, sink, clock)
        sink(AnalysisFinished(clock(), *plan.counts, from_snapshot))
        for label, reason in plan.skipped:
            sink(TargetSkipped(clock(), label, reason))

        def warn(text: str) -> None:
            sink(Message(clock(), "warning", text))

        def note(text: str) -> None:
            sink(Message(clock(), "info", text))

        identities = ToolIdentities(cache.root)
        environments = ToolEnvironments(cache.root, request.package_source, note=note, warn=warn)
        with LocalExecutor(
            cache.root,
            cache.blobs,
            identities=identities,
            environments=environments,
            workspace=str(request.root),
            warn=warn,
        ) as local:
            run = _Run(request, cache, local, identities, plan, sink, clock)
            complete = False
            try:
                run.schedule()
                complete = run.report()
                if complete and not cache.read_only:
                    run.remember(files, facts if from_snapshot else None)
                if run.executed_anything:
                    cache.sync()
            except CacheError as error:
                if complete:
                    error.notes = (
                        *error.notes,
                        "what was asked for is built; keeping the record of it failed",
                    )
                run.finish(error.exit_code)
                raise
        for text in cache.notes:
            warn(text)
        return run.outcome()


class _Run:
    """One execution of a plan."""

    def __init__(
        self,
        request: BuildRequest,
        cache: LocalCache,
        executor: LocalExecutor,
        identities: ToolIdentities,
        plan: Plan,
        sink: EventSink,
        clock: Clock,
    ) -> None:
        self._request = request
        self._cache = cache
        self._plan = plan
        self._sink = sink
        self._clock = clock
        self._output_root = request.output_root
        self._identities = identities
        outputs = OutputTree(str(request.root), cache.blobs)
        outputs.prepare()
        self._world = BuildWorld(
            str(request.root),
            cache=cache,
            identities=identities,
            outputs=outputs,
            executor=executor,
        )
        cores = len(os.sched_getaffinity(0))
        resources = ResourcePool(measure_machine(cache.root))
        self._counts = dict.fromkeys(("executed", "local_hit", "remote_hit", "unchanged", "failed"), 0)
        self._fresh: set[str] = set()
        self._errors: dict[str, str] = {}
        self._exit_code = ExitCode.OK
        self._safe_at = clock()
        self._skipped: list[str] = []
        self._unreached: list[str] = []
        self._reported = False
        checked = {target.label for target in plan.graph.requested} if request.check else set()

        def rerun(action: Action) -> bool:
            return action.owner in checked

        refuse_oversized(plan.graph, self._world, resources, known=plan.known, rerun=rerun, salt=request.salt)
        self._scheduler = Scheduler(
            plan.graph,
            world=self._world,
            step=Step(
                runner=self._world.run,
                locks=cache.locks,
                lookup=self._world.lookup,
                store=self._world.store,
                compare=lambda action, old, new: compare_results(cache.blobs, action, old, new),
            ),
            resources=resources,
            jobs=request.jobs or cores,
            keep_going=request.keep_going,
            rerun=rerun,
            salt=request.salt,
            clock=clock,
            sink=self._observe,
            known=plan.known,
        )

    def schedule(self) -> None:
        """Run the scheduler; facts that were learnt are written whatever happens."""
        if self._request.detailed:
            self._report_known()
        self._counts["unchanged"] += len(self._plan.known)
        try:
            self._scheduler.run()
        finally:
            self._cache.flush()
            self._identities.save()

    def report(self) -> bool:
        """Tell which targets are built and which tests passed; whether everything asked for is there."""
        self._reported = True
        graph = self._plan.graph
        failed = self._failed()
        for target in self._told():
            built = self._is_built(target)
            if not built:
                self._skipped.append(str(target.label))
                if failed.isdisjoint(self._makers(target)):
                    self._unreached.append(str(target.label))
            files = tuple(str(artifact) for artifact in target.files) if built else ()
            self._sink(TargetFinished(self._clock(), str(target.label), built, files))
        for label in self._plan.unbuildable:
            self._sink(TargetFinished(self._clock(), label, False, ()))
        if self._request.command == "test":
            built_targets = [t for t in graph.requested if str(t.label) not in self._skipped]
            now = self._clock()
            if not report_verdicts(built_targets, self._output_root, self._fresh, self._sink, now):
                self._exit_code = ExitCode.TEST_FAILED
        if self._skipped or self._counts["failed"] or self._plan.has_errors:
            self._exit_code = self._worst()
        return self._exit_code in (ExitCode.OK, ExitCode.TEST_FAILED)

    def _worst(self) -> ExitCode:
        """What a failed build exits with: 4 when nothing but the machine is at fault."""
        errors = [done.error for done in self._scheduler.settled.values() if done.error is not None]
        if errors and all(error.exit_code is ExitCode.ENVIRONMENT for error in errors):
            return ExitCode.ENVIRONMENT
        return ExitCode.ACTION_FAILED

    def _told(self) -> Iterable[RequestedTarget]:
        """The targets that get an event: all, but of very many that went well none."""
        requested = self._plan.graph.requested
        few = len(requested) <= FEW_TARGETS
        if (
            few
            or self._plan.has_errors
            or self._request.detailed
            or self._request.command != "build"
            or self._counts["failed"]
        ):
            return requested
        return ()

    def outcome(self) -> BuildOutcome:
        """Say goodbye."""
        self.finish(self._exit_code)
        return BuildOutcome(self._exit_code, self._plan.graph.requested, self._errors, tuple(self._skipped))

    def finish(self, exit_code: ExitCode) -> None:
        """Send the last event: what ran, what is built and what is not, as far as that is known."""
        counts = self._counts
        built = len(self._plan.graph.requested) - len(self._skipped) if self._reported else 0
        self._sink(
            BuildFinished(
                self._clock(),
                counts["executed"],
                counts["local_hit"],
                counts["remote_hit"],
                counts["unchanged"],
                counts["failed"],
                self._clock(),
                int(exit_code),
                critical_path_s=max(self._scheduler.finish_times.values(), default=0.0),
                targets=built,
                skipped=(*self._skipped, *self._plan.unbuildable),
                unreached=tuple(self._unreached),
            )
        )

    def remember(self, files: SnapshotFiles, before: Facts | None) -> None:
        """Write the snapshot that answers the next request."""
        graph = self._plan.graph
        settled = self._scheduler.settled
        rows = list(self._plan.rows) if self._plan.rows else [["", ""] for _ in graph.actions]
        outputs = dict(before.outputs) if before else {}
        if before:
            outputs = {path: fact for path, fact in outputs.items() if fact[1] not in settled}
        for index, done in settled.items():
            if done.result is not None:
                rows[index] = [done.key.sha256, done.result.to_json().decode()]
                outputs |= self._output_stamps(graph.actions[index], index)
        environment = dict(before.environment) if before else {}
        environment |= {path: stamp(path) for path in self._world.environment}
        encoded = None if before else encode_graph(graph)
        files.write(
            Facts(
                graph_generation=before.graph_generation if before else new_generation(),
                results_generation=new_generation(),
                loading=self._plan.loading,
                directories=self._plan.directories,
                environment=environment,
                sources=(before.sources if before else {}) | self._world.stamps,
                outputs=outputs,
                requested=encoded["requested"] if encoded else before.requested if before else [],
                skipped=self._plan.skipped,
                counts=self._plan.counts,
            ),
            rows,
            encoded,
        )

    def _output_stamps(self, action: Action, index: int) -> dict[str, tuple[Stamp, int]]:
        stamps = {}
        for artifact in action.outputs.values():
            absolute = f"{self._output_root}/{artifact.path}"
            stamps[artifact.path] = (stamp(absolute), index)
            if artifact.kind == "tree":
                for directory, _, names in os.walk(absolute):
                    below = os.path.relpath(directory, self._output_root)
                    stamps[below] = (stamp(directory), index)
                    for name in names:
                        stamps[f"{below}/{name}"] = (stamp(f"{directory}/{name}"), index)
        return stamps

    @property
    def executed_anything(self) -> bool:
        """Whether there are new blobs."""
        return self._counts["executed"] > 0

    def _keep_safe(self) -> None:
        """Every few seconds, bring what was made to disk: a killed build must not lose hours."""
        now = self._clock()
        if now - self._safe_at > _KEEP_SAFE_S:
            self._cache.flush()
            self._cache.sync()
            self._safe_at = self._clock()

    def _observe(self, event: Event) -> None:
        if isinstance(event, ActionFinished):
            self._keep_safe()
            self._counts[event.result] += 1
            if event.result != "unchanged":
                action = self._plan.graph.actions[event.action]
                self._fresh.update(a.path for a in action.outputs.values() if event.result == "executed")
            if event.result == "failed":
                self._errors[event.label] = event.error
        self._sink(event)

    def _makers(self, target: RequestedTarget) -> Iterator[int]:
        """The actions that make what building `target` means."""
        verdict = (target.verdict,) if target.verdict else ()
        for artifact in (*target.files, *target.validations, *verdict):
            if not artifact.is_source:
                yield self._plan.graph.producers[artifact.path]

    def _is_built(self, target: RequestedTarget) -> bool:
        settled, known = self._scheduler.settled, self._plan.known
        return all(
            index in known or (index in settled and settled[index].result is not None)
            for index in self._makers(target)
        )

    def _failed(self) -> set[int]:
        """The actions that failed, and those that need what they would have made."""
        if not self._counts["failed"]:
            return set()
        failed = {index for index, done in self._scheduler.settled.items() if done.result is None}
        for index, dependencies in enumerate(self._plan.graph.dependencies):
            if not failed.isdisjoint(dependencies):
                failed.add(index)
        return failed

    def _report_known(self) -> None:
        graph = self._plan.graph
        for index in self._plan.known:
            action = graph.actions[index]
            known = self._plan.known[index]
            self._sink(
                ActionFinished(
                    self._clock(),
                    index,
                    str(action.owner),
                    action.mnemonic,
                    known.key,
                    "unchanged",
                    0.0,
                    known.result.peak_rss_bytes,
                    dependencies=graph.dependencies[index],
                )
            )
