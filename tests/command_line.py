"""A temporary workspace, driven by the real command line in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODELBUILD = str(Path(sys.executable).parent / "modelbuild")


@dataclass
class Result:
    """One call of the command line."""

    exit_code: int
    stdout: str
    stderr: str
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def finished(self) -> dict[str, Any]:
        """The last event."""
        assert self.events, self.stderr
        assert self.events[-1]["event"] == "build_finished"
        return self.events[-1]

    def outcomes(self) -> dict[str, str]:
        """Label -> result of its (last) action."""
        return {e["label"]: e["result"] for e in self.events if e["event"] == "action_finished"}

    def executed(self) -> set[str]:
        """Labels whose actions ran."""
        return {label for label, outcome in self.outcomes().items() if outcome == "executed"}


@dataclass
class CommandLine:
    """A workspace and the commands that are run in it."""

    root: Path

    def write(self, **files: str) -> None:
        """Write files; `__` in a name stands for `/`, `_dot_` for a dot."""
        for name, content in files.items():
            self.put(name.replace("__", "/").replace("_dot_", "."), content)

    def put(self, path: str, content: str) -> Path:
        """Write one file."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        return target

    def out(self, path: str) -> str:
        """The content of an output."""
        return (self.root / "modelbuild-out" / path).read_text()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command in its own session and leave it running."""
        return subprocess.Popen(
            [MODELBUILD, *arguments],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
            start_new_session=True,
            # A test run in the background ignores Ctrl-C, and would hand that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def run(self, *arguments: str, **environment: str) -> Result:
        """Run a command to its end."""
        process = self.start(*arguments, **environment)
        stdout, stderr = process.communicate(timeout=300)
        assert "Traceback" not in stderr, stderr
        return Result(process.returncode, stdout, stderr)

    def build(self, *arguments: str, command: str = "build", expect: int = 0) -> Result:
        """Build and read the events; `expect` is the exit code."""
        events = self.root.parent / f"{self.root.name}.events"
        events.unlink(missing_ok=True)
        result = self.run(command, "--events", str(events), *(arguments or ("//...",)))
        assert result.exit_code == expect, f"exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
        if events.exists():
            result.events = [json.loads(line) for line in events.read_text().splitlines()]
        return result


CHAIN = """
genrule(name = "upper", srcs = ["in.txt"], outs = ["upper.txt"], cmd = "tr a-z A-Z < $< > $@")
genrule(name = "count", srcs = [":upper"], outs = ["count.txt"], cmd = "wc -c < $< > $@")
genrule(name = "report", srcs = [":count", "title.txt"], outs = ["report.txt"], cmd = "cat $(SRCS) > $@")
"""
