"""kill -9 of the build leaves no process behind, and the next build takes over its work area."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PARENT = """
import sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from modelbuild.actions.action import Action
from modelbuild.artifact import Artifact
from modelbuild.cache.disk import DiskBlobStore
from modelbuild.execution.executor import ExecutionContext, PreparedAction
from modelbuild.execution.local import LocalExecutor
from modelbuild.tool import PythonTool, ShellTool

root = Path(sys.argv[1])
executor = LocalExecutor(str(root / "cache"), DiskBlobStore(str(root / "cache")))
executor.open()

def run(number, tool, params, out):
    action = Action(tool, params, {}, {out: Artifact("out", "file")})
    executor.execute(PreparedAction(action, f"{number:064x}", ()), ExecutionContext(str(root / f"{number}.log")))

commands = [
    f"echo $$ >> {root}/pids; sleep 300",
    f"trap '' TERM INT HUP; echo $$ >> {root}/pids; while true; do sleep 300; done",
    f"setsid bash -c 'echo $$ >> {root}/pids; sleep 300' & echo $$ >> {root}/pids; wait",
]
with ThreadPoolExecutor(8) as pool:
    for number, command in enumerate(commands):
        pool.submit(run, number, ShellTool(), {"command": command}, "modelbuild-out/out")
    pool.submit(run, 9, PythonTool(root / "tool.py"), {"pids": f"{root}/pids"}, "out/out")
"""

TOOL = """
import os, time
def main(request):
    with open(request.params["pids"], "a") as pids:
        pids.write(f"{os.getpid()}\\n{os.getppid()}\\n")
    time.sleep(300)
"""


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}") and state(pid) != "Z"]


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_build(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "tool.py").write_text(TOOL)
    pids = tmp_path / "pids"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    try:
        expected = 6
        assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == expected)
        running = [int(pid) for pid in pids.read_text().split()]
        assert alive(running) == running
    finally:
        parent.send_signal(number)
        parent.wait()
    assert wait_until(lambda: not alive(running)), alive(running)


def test_the_next_build_clears_the_work_area(tmp_path: Path, bench: Any) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    (tmp_path / "tool.py").write_text(TOOL)
    pids = tmp_path / "pids"
    assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) >= 4)
    # `bench` claimed the same area before; while it does, nobody clears it.
    assert bench.running_directories
    parent.kill()
    parent.wait()
    bench.executor.close()
    running = [int(pid) for pid in pids.read_text().split()]
    assert wait_until(lambda: not alive(running))
    bench.executor.open()
    assert bench.running_directories == []
