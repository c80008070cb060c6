"""A workspace, a cache and an executor in a temporary directory; actions run for real."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelbuild.actions.action import Action
from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.artifact import Artifact
from modelbuild.cache.disk import DiskBlobStore
from modelbuild.digest import digest_bytes, digest_file
from modelbuild.execution.executor import ExecutionContext, PreparedAction, Progress, ResolvedInput
from modelbuild.execution.local import LocalExecutor
from modelbuild.label import Label
from modelbuild.tool import PythonTool, ShellTool, Tool
from modelbuild.tree import Tree


@dataclass
class Bench:
    """Runs single actions and reads what they made."""

    root: Path
    blobs: DiskBlobStore
    executor: LocalExecutor
    warnings: list[str] = field(default_factory=list)
    cancel: threading.Event = field(default_factory=threading.Event)
    progress: list[Progress] = field(default_factory=list)
    count: int = 0

    def source(self, path: str, content: str = "content\n") -> ResolvedInput:
        """A file of the workspace as an input at its own path."""
        file = self.root / "workspace" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return ResolvedInput(path, "file", str(file), digest_file(file))

    def blob(self, name: str, content: str) -> ResolvedInput:
        """A blob of the cache as an input."""
        digest = self.blobs.put_bytes(content.encode())
        return ResolvedInput(name, "file", self.blobs.path(digest), digest)

    def tool(self, body: str, *, preload: tuple[str, ...] = ()) -> PythonTool:
        """A tool whose `main(request)` has `body`."""
        self.count += 1
        folder = self.root / f"tool{self.count}"
        folder.mkdir()
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        (folder / "tool.py").write_text(f"import os, sys, time\n\ndef main(request):\n{lines}\n")
        return PythonTool(folder / "tool.py", preload=preload)

    def prepare(
        self,
        tool: Tool,
        inputs: tuple[ResolvedInput, ...] = (),
        outputs: Mapping[str, str] | None = None,
        **params: object,
    ) -> PreparedAction:
        """An action; `outputs` maps logical names to `file` or `tree`."""
        kinds = {"modelbuild-out/pkg/out": "file"} if outputs is None else outputs
        action = Action(
            tool,
            params,
            {
                each.name: Artifact(each.name, "source" if "/workspace/" in (each.path or "") else "file")
                for each in inputs
            },
            {
                name: Artifact(name.removeprefix("modelbuild-out/"), "tree" if kind == "tree" else "file")
                for name, kind in kinds.items()
            },
            owner=Label("", "pkg", "it"),
            mnemonic="Test",
        )
        self.count += 1
        return PreparedAction(action, digest_bytes(str(self.count).encode()).sha256, inputs)

    def context(self, prepared: PreparedAction, scratch: str | None = None) -> ExecutionContext:
        logs = self.root / "cache" / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        log = str(logs / f"{prepared.key}.log")
        return ExecutionContext(log, self.cancel, self.progress.append, scratch)

    def run(self, prepared: PreparedAction, scratch: str | None = None) -> ActionResult:
        result = self.executor.execute(prepared, self.context(prepared, scratch))
        assert result is not None
        return result

    def shell(self, command: str, *inputs: ResolvedInput, outputs: Mapping[str, str] | None = None) -> str:
        """Run a command; answers the content of its one output."""
        result = self.run(self.prepare(ShellTool(), inputs, outputs, command=command))
        return self.text(next(iter(result.outputs.values())))

    def text(self, output: OutputDigest) -> str:
        assert output.kind == "file"
        return self.blobs.read(output.digest).decode()

    def tree(self, output: OutputDigest) -> dict[str, str]:
        assert output.kind == "tree"
        tree = Tree.decode(self.blobs.read(output.digest))
        return {file.path: self.blobs.read(file.digest).decode() for file in tree.files}

    @property
    def running_directories(self) -> list[str]:
        """What lies in the work area for actions that run, or were left behind."""
        return sorted(
            path.name
            for path in (self.root / "cache" / "work").iterdir()
            if path.name not in (".lock", "idle", "trash")
        )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    blobs = DiskBlobStore(str(tmp_path / "cache"))
    warnings: list[str] = []
    (tmp_path / "workspace").mkdir()
    with LocalExecutor(
        str(tmp_path / "cache"), blobs, workspace=str(tmp_path / "workspace"), warn=warnings.append
    ) as executor:
        yield Bench(tmp_path, blobs, executor, warnings)
