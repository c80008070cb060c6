"""ActionRunner: runs the actions that a rule or a toolchain declared, on files that a test has."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from modelbuild.actions.action import Action
from modelbuild.artifact import Artifact
from modelbuild.testing.rule_target import RuleTarget
from modelbuild.testing.tool_call import run_tool
from modelbuild.tool import PythonTool, TreeTool, WriteTool


@dataclass
class ActionRunner:
    """Runs actions without a workspace. directory: where they run.

    files: artifact -> where it lies; what was made is added. environments: see `run_tool`.
    """

    directory: Path
    files: dict[Artifact, Path]
    environments: Path | None = None
    _made: dict[str, dict[str, Path]] = field(default_factory=dict)

    def run(self, target: RuleTarget) -> dict[Artifact, Path]:
        """Run the actions of a target in order, and return where everything lies that it makes.

        Equal actions run once, as in a build, whoever declares them. Raises AssertionError for an input that
        is neither in `files` nor made by an action before, and for what only a build can run: shell commands,
        and actions on another device.
        """
        made: dict[Artifact, Path] = {}
        for action in target.actions:
            found = self._run(action)
            outputs = {artifact: found[name] for name, artifact in action.outputs.items()}
            made |= outputs
            self.files |= outputs
        return made

    def _run(self, action: Action) -> dict[str, Path]:
        missing = [str(each) for each in action.inputs.values() if each not in self.files]
        assert not missing, f"{action.mnemonic} needs `{missing[0]}`, which the test does not provide"
        assert action.runner is None, f"{action.mnemonic} runs on another device: {action.runner}"
        inputs = {name: self.files[each] for name, each in action.inputs.items()}
        key = repr((action.tool, sorted(action.params.items()), sorted(inputs.items()), action.threads))
        if key not in self._made:
            self._made[key] = self._result(action, inputs)
        return self._made[key]

    def _result(self, action: Action, inputs: dict[str, Path]) -> dict[str, Path]:
        if isinstance(action.tool, PythonTool):
            found = run_tool(
                action.tool,
                self.directory,
                inputs={name.removeprefix("in/"): path for name, path in inputs.items()},
                outputs=[name.removeprefix("out/") for name in action.outputs],
                params=action.params,
                threads=action.threads,
                resumable=action.resumable,
                environments=self.environments,
            )
            return {f"out/{name}": path for name, path in found.items()}
        out = Path(tempfile.mkdtemp(prefix=f"{action.mnemonic}-", dir=self.directory)) / "out"
        if isinstance(action.tool, WriteTool):
            out.write_text(str(action.params["content"]), encoding="utf-8")
        else:
            assert isinstance(action.tool, TreeTool), f"{action.mnemonic} is a shell command"
            for name, path in inputs.items():
                place = out / name
                place.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, place)
        return dict.fromkeys(action.outputs, out)
