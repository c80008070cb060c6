"""Two builds at once, Ctrl-C, SIGTERM, kill -9."""

import json
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.command_line import CommandLine

SLOW = "\n".join(
    f'genrule(name = "s{i}", srcs = ["in.txt"], outs = ["s{i}.txt"], cmd = "sleep 0.3; cat $< > $@; echo {i} >> $@")'
    for i in range(6)
)


def children_of(session: int) -> list[psutil.Process]:
    """Processes that still belong to a build: its own session's, and the workers it started."""
    found = []
    for process in psutil.process_iter(["pid"]):
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def processes_in(directory: Path) -> list[str]:
    """Command lines of processes whose working directory lies in `directory`."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        cwd = process.info["cwd"]
        if cwd and cwd.startswith(str(directory)):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def test_two_builds_at_once_run_each_action_once(workspace: CommandLine) -> None:
    workspace.put("BUILD.models", SLOW)
    workspace.put("in.txt", "x\n")
    events = [workspace.root.parent / f"{name}.events" for name in "ab"]
    builds = [workspace.start("build", "--events", str(path), "//...") for path in events]
    for process in builds:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    finished = [json.loads(path.read_text().splitlines()[-1]) for path in events]
    assert sum(event["executed"] for event in finished) == 6
    assert sum(event["local_hits"] + event["unchanged"] for event in finished) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything_within_two_seconds(workspace: CommandLine, number: int) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "long", outs = ["long.txt"], cmd = "trap \'\' TERM; echo started > $@; sleep 600")\n'
        'genrule(name = "tree", outs = ["tree.txt"], cmd = "(setsid sleep 601 &) ; sleep 602; echo > $@")\n',
    )
    process = workspace.start("build", "//...")
    deadline = time.monotonic() + 60
    while len([p for p in processes_in(workspace.root) if "sleep" in p]) < 3:
        assert time.monotonic() < deadline, processes_in(workspace.root)
        time.sleep(0.05)
    started = time.monotonic()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert time.monotonic() - started < 4  # Two seconds are promised; the machine may be busy.
    assert process.returncode == 130
    assert processes_in(workspace.root) == []
    assert not (workspace.root / "modelbuild-out" / "long.txt").exists()
    assert workspace.run("cache", "verify").exit_code == 0


CHAINS = "\n".join(
    f'genrule(name = "c{i}", srcs = ["{"in.txt" if i % 4 == 0 else f":c{i - 1}"}"], outs = ["c{i}.txt"], '
    f'cmd = "cat $< > $@; head -c 20000 /dev/zero >> $@; echo {i} >> $@")'
    for i in range(16)
)


@pytest.mark.slow
def test_fifty_kills_then_a_build_equals_a_clean_build(workspace: CommandLine, tmp_path: Path) -> None:
    workspace.put("BUILD.models", CHAINS)
    workspace.put("in.txt", "0\n")
    clean = CommandLine(tmp_path / "clean")
    clean.root.mkdir()
    clean.put("modelbuild.toml", "")
    clean.put("BUILD.models", CHAINS)
    chance = random.Random(7)
    for kill in range(55):
        workspace.put("in.txt", f"{kill}\n")
        process = workspace.start("build", "-j", "4", "//...")
        time.sleep(chance.uniform(0.05, 0.9))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
        deadline = time.monotonic() + 5
        while processes_in(workspace.root):
            assert time.monotonic() < deadline, processes_in(workspace.root)
            time.sleep(0.02)
        if kill % 5 == 4:
            workspace.build()
            clean.put("in.txt", f"{kill}\n")
            clean.build()
            for i in range(16):
                assert workspace.out(f"c{i}.txt") == clean.out(f"c{i}.txt")
            assert workspace.build().finished["executed"] == 0
    assert workspace.run("cache", "verify").exit_code == 0
