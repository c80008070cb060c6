"""FakeExecutor: an Executor that starts no process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.cache.memory import InMemoryBlobStore
from modelbuild.digest import digest_bytes
from modelbuild.execution.executor import ExecutionContext, PreparedAction


@dataclass
class FakeExecutor:
    """An Executor that runs nothing: `make` says what each output file holds. Keeps a journal."""

    blobs: InMemoryBlobStore = field(default_factory=InMemoryBlobStore)
    make: Callable[[PreparedAction, str], bytes] = lambda prepared, name: f"{prepared.key} {name}".encode()
    journal: list[str] = field(default_factory=list)

    def execute(self, prepared: PreparedAction, ctx: ExecutionContext) -> ActionResult | None:
        """Every declared output as a file of what `make` says."""
        self.journal.append(str(prepared.action.owner))
        outputs = {}
        for name in prepared.action.outputs:
            data = self.make(prepared, name)
            self.blobs.put_bytes(data)
            outputs[name] = OutputDigest("file", digest_bytes(data))
        return ActionResult(outputs)
