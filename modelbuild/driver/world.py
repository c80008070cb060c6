"""BuildWorld: the workspace, the cache and the output tree, as the scheduler sees them."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping
from typing import Any

from modelbuild.actions.action import Action
from modelbuild.actions.key import ActionKey
from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.cache.local import LocalCache
from modelbuild.driver.record import new_row
from modelbuild.driver.stamp import Stamp, stamp_before_reading
from modelbuild.errors import ActionFailed
from modelbuild.execution.environment import ToolIdentities
from modelbuild.execution.executor import (
    ExecutionContext,
    FileState,
    PreparedAction,
    Progress,
    ResolvedInput,
)
from modelbuild.execution.local import LocalExecutor
from modelbuild.execution.output_tree import OutputTree
from modelbuild.execution.step import ProgressCallback
from modelbuild.execution.world import Estimate, Settled
from modelbuild.tool import PythonTool
from modelbuild.tree import Tree


class BuildWorld:
    """Answers the scheduler's questions about one workspace; remembers which sources it has read."""

    def __init__(
        self,
        root: str,
        *,
        cache: LocalCache,
        identities: ToolIdentities,
        outputs: OutputTree,
        executor: LocalExecutor,
    ) -> None:
        self._root = root
        self._cache = cache
        self._identities = identities
        self._outputs = outputs
        self._executor = executor
        self._costs = cache.trace.estimates()
        self._digests: dict[str, OutputDigest] = {}
        self._states: dict[str, FileState] = {}
        self.stamps: dict[str, Stamp] = {}
        """Stamp of every source that was read, taken before it was."""
        self.environment: set[str] = set()
        """Paths that the identities of tools rest on."""

    def source(self, path: str) -> OutputDigest:
        """The digest of a source file. Raises ActionFailed when it is none."""
        if path not in self._digests:
            absolute = os.path.join(self._root, path)
            self.stamps[path] = stamp_before_reading(absolute)
            try:
                status = os.stat(absolute)
                if stat.S_ISDIR(status.st_mode):
                    raise ActionFailed(
                        f"source `{path}` is a directory", hint='name its files, as in `glob(["dir/**"])`'
                    )
                if not stat.S_ISREG(status.st_mode):
                    raise ActionFailed(f"source `{path}` is neither a file nor a directory")
                digest = self._cache.fingerprints.digest(absolute, status)
            except OSError as error:
                raise ActionFailed(f"source `{path}` cannot be read: {error.strerror}") from error
            self._states[path] = FileState(status.st_size, status.st_mtime_ns, status.st_ino)
            self._digests[path] = OutputDigest("file", digest, bool(status.st_mode & stat.S_IXUSR))
        return self._digests[path]

    def tool_identity(self, action: Action) -> str:
        """The digest of the action's tool and environment."""
        identity = self._identities.identity(action.tool, action.params, action.runner)
        self.environment.update(identity.facts)
        return identity.digest

    def lookup(self, key: str) -> ActionResult | None:
        """A complete and unaltered result."""
        return self._cache.actions.get(key)

    def store(self, key: str, result: ActionResult) -> None:
        """Remember a result whose blobs are all stored."""
        self._cache.actions.put(key, result)

    def is_current(self, action: Action, result: ActionResult) -> bool:
        """Whether modelbuild-out holds this very result already."""
        return all(
            self._outputs.current(artifact, result.outputs[name], self._tree(result.outputs[name]))
            for name, artifact in action.outputs.items()
        )

    def link(self, action: Action, result: ActionResult) -> None:
        """Put the outputs into modelbuild-out."""
        for name, artifact in action.outputs.items():
            output = result.outputs[name]
            self._outputs.put(artifact, output, self._tree(output))

    def estimate(self, action: Action) -> Estimate | None:
        """What the action cost last time."""
        cost = self._costs.get(action.primary_output.path)
        return Estimate(cost.duration_s, cost.peak_rss_bytes) if cost else None

    def warm(self, action: Action) -> None:
        """Have the worker start that a Python tool needs: it imports while other actions run."""
        if isinstance(action.tool, PythonTool):
            self._executor.warm(action)

    def reason(self, action: Action, key: ActionKey, inputs: Mapping[str, OutputDigest]) -> str:
        """Why the action has to run."""
        previous = self._cache.trace.latest(action.primary_output.path)
        return str(self._cache.explain(previous, key.components, self.detail(action, inputs)))

    def detail(self, action: Action, inputs: Mapping[str, OutputDigest]) -> dict[str, Any]:
        """What the components of the action's key are made of, for `explain`."""
        identity = self._identities.identity(action.tool, action.params, action.runner)
        return {
            "params": action.params,
            "tool": identity.detail,
            "inputs": {name: _told(value) for name, value in inputs.items()},
            "outputs": {name: artifact.kind for name, artifact in action.outputs.items()},
            "threads": action.threads,
            "platform": list(action.platform),
        }

    def settled(
        self, action: Action, settled: Settled, inputs: Mapping[str, OutputDigest], reason: str
    ) -> None:
        """Write down what happened to the action, unless nothing did."""
        if settled.outcome != "unchanged" and settled.key.sha256:
            self._cache.trace.record(new_row(action, settled, self.detail(action, inputs), reason))

    def run(
        self,
        action: Action,
        key: str,
        inputs: Mapping[str, OutputDigest],
        progress: ProgressCallback,
        cancelled: threading.Event,
    ) -> ActionResult:
        """Run the action here. Called in worker threads."""
        prepared = PreparedAction(
            action, key, tuple(self._resolve(name, action, value) for name, value in inputs.items())
        )

        def on_progress(report: Progress) -> None:
            progress(report.step, report.total, report.unit, report.metrics)

        context = ExecutionContext(
            log_path=self._cache.log_path(key),
            cancel=cancelled,
            on_progress=on_progress,
            scratch=self._cache.scratch_dir(key) if action.resumable else None,
        )
        result = self._executor.execute(prepared, context)
        if result is None:
            raise ActionFailed(f"`{action.owner}`: no executor can run {action.mnemonic}")
        return result

    def _resolve(self, name: str, action: Action, value: OutputDigest) -> ResolvedInput:
        artifact = action.inputs[name]
        if artifact.is_source:
            path = os.path.join(self._root, artifact.path)
            state = self._states[artifact.path]
            return ResolvedInput(name, "file", path, value.digest, None, value.executable, state)
        if value.kind == "tree":
            return ResolvedInput(name, "tree", None, value.digest, self._tree(value))
        blob = self._cache.blobs.path(value.digest, executable=value.executable)
        return ResolvedInput(name, "file", blob, value.digest, None, value.executable)

    def _tree(self, value: OutputDigest) -> Tree | None:
        return Tree.decode(self._cache.blobs.read(value.digest)) if value.kind == "tree" else None


def _told(value: OutputDigest) -> list[Any]:
    """An input as the trace remembers it: kind, digest and, of a program, that it is one."""
    return [value.kind, value.digest.sha256, *([True] if value.executable else [])]
