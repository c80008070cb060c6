"""Context: all that a rule can do while it is analysed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from modelbuild.actions.action import Action, Determinism, Resources
from modelbuild.artifact import Artifact
from modelbuild.errors import AnalysisError
from modelbuild.label import Label
from modelbuild.tool import PythonTool, ShellTool, Tool, TreeTool, WriteTool


class Context:
    """Declares outputs and actions of one target. Opens no file and starts no process."""

    def __init__(
        self,
        label: Label,
        *,
        determinism: Determinism = "bitwise",
        declared_at: str = "",
    ) -> None:
        self.label = label
        self._declared_at = declared_at
        self.actions: list[Action] = []
        self.listings: list[str] = []
        self._determinism = determinism
        self._declared: dict[str, Artifact] = {}

    def declare_file(self, name: str) -> Artifact:
        """An output file, `modelbuild-out/<package>/<target>/<name>`."""
        return self._declare(f"{self.label.name}/{name}", "file")

    def declare_tree(self, name: str) -> Artifact:
        """An output directory, `modelbuild-out/<package>/<target>/<name>`."""
        return self._declare(f"{self.label.name}/{name}", "tree")

    def declare_output(self, path: str) -> Artifact:
        """An output file at `modelbuild-out/<package>/<path>`, as genrule's `outs` name it."""
        return self._declare(path, "file")

    def run(
        self,
        *,
        tool: PythonTool,
        mnemonic: str,
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        params: Mapping[str, Any],
        threads: int = 1,
        resources: Resources | None = None,
        determinism: Determinism | None = None,
        resumable: bool = False,
        progress: str = "",
        depends_on: Sequence[str] = (),
    ) -> None:
        """Declare an action that calls `tool`.

        inputs, outputs: logical name -> artifact; the tool finds them in `request.inputs[name]` and
        `request.outputs[name]`. params: plain JSON data. depends_on: the constraint values that the
        result depends on; nothing else of the platform reaches the key.
        """
        self._add(
            tool,
            params,
            {f"in/{name}": artifact for name, artifact in inputs.items()},
            {f"out/{name}": artifact for name, artifact in outputs.items()},
            mnemonic,
            platform=tuple(sorted(depends_on)),
            threads=threads,
            resources=resources or Resources(cpu=threads),
            determinism=determinism or self._determinism,
            resumable=resumable,
            progress=progress,
        )

    def run_shell(
        self,
        *,
        command: str,
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        mnemonic: str = "Genrule",
        progress: str = "",
        executable: bool = False,
    ) -> None:
        """Declare an action that runs `command` in bash. Logical names are the paths the command uses.

        executable: the outputs are programs, whatever mode the command leaves them in.
        """
        params = {"command": command, "executable": executable}
        self._add(ShellTool(), params, inputs, outputs, mnemonic, progress=progress)

    def write(self, artifact: Artifact, content: str, *, executable: bool = False) -> None:
        """Declare an action that writes `content` (UTF-8) to `artifact`."""
        params = {"content": content, "executable": executable}
        self._add(WriteTool(), params, {}, {"out": artifact}, "Write")

    def symlink_tree(self, artifact: Artifact, files: Mapping[str, Artifact]) -> None:
        """Declare an action that makes tree `artifact` of `files`: path in the tree -> file or tree."""
        self._add(TreeTool(), {}, files, {"out": artifact}, "SymlinkTree")

    def record_listing(self, directory: str) -> None:
        """Say that the rule read which files lie in a directory of the machine (absolute path).

        An exception for rules around what is installed, as `python_stdlib`: while the names in the directory
        stay the same, a null build need not ask the rule again.
        """
        self.listings.append(directory)

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        """Refuse the target; the BUILD line is added to the error."""
        raise AnalysisError(f"`{self.label}`: {message}", hint=hint)

    def _declare(self, path: str, kind: str) -> Artifact:
        full = f"{self.label.package}/{path}" if self.label.package else path
        if full in self._declared:
            raise AnalysisError(f"`{self.label}` declares output `{path}` twice")
        artifact = Artifact(full, "tree" if kind == "tree" else "file")
        self._declared[full] = artifact
        return artifact

    def _add(
        self,
        tool: Tool,
        params: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        mnemonic: str,
        **fields: Any,
    ) -> None:
        if not outputs:
            raise AnalysisError(f"`{self.label}`: action {mnemonic} declares no output")
        action = Action(tool, params, dict(inputs), dict(outputs))
        self.actions.append(
            replace(action, owner=self.label, declared_at=self._declared_at, mnemonic=mnemonic, **fields)
        )
