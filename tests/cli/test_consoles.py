from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelbuild import events as build_events  # pytest takes a class named Test... for tests
from modelbuild.cli import plain_console
from modelbuild.cli.console import ConsoleOptions, open_console
from modelbuild.cli.terminal import Environment, Terminal
from modelbuild.errors import ExitCode
from modelbuild.events import (
    ActionFinished,
    ActionStarted,
    BuildFinished,
    BuildStarted,
    Event,
    Message,
    TargetFinished,
)
from modelbuild.testing import assert_golden

KEY = "0" * 64


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines must follow from the events alone, however slow the machine is."""
    monkeypatch.setattr(plain_console, "TICK_S", 3600.0)


def show(events: list[Event], root: Path, **options: bool) -> str:
    stream = io.StringIO()
    terminal = Terminal(Environment(), "never", io.StringIO(), stream)
    with open_console(terminal, root, ConsoleOptions(**options)) as (sink, _):  # type: ignore[arg-type]
        for event in events:
            sink(event)
    return stream.getvalue()


def finished(exit_code: int = 0, **counts: Any) -> BuildFinished:
    zero = {"executed": 0, "local_hits": 0, "remote_hits": 0, "unchanged": 0, "failed": 0, "wall_s": 0.08}
    return BuildFinished(9.0, exit_code=exit_code, **{**zero, **counts})


def built(label: str, *files: str) -> TargetFinished:
    return TargetFinished(8.0, label, built=True, files=files)


def test_pipeline_as_lines(replay: Any, tmp_path: Path) -> None:
    log = tmp_path / "student.log"
    log.write_text("".join(f"step {n}\n" for n in range(40)) + "\rprogress 1\rprogress 2\nno number\n")
    shown = show(replay.made_up(fail=True, log=str(log)), tmp_path)
    assert_golden("cli/plain-console.txt", shown.replace(str(log), "LOG"))


def test_null_build_is_one_line(tmp_path: Path) -> None:
    started = BuildStarted(0.0, "build", ("//a:b",), 1, "0")
    assert (
        show([started, built("//a:b"), finished(unchanged=3)], tmp_path) == "//a:b is up to date (0.08 s)\n"
    )
    assert show([started, built("//a:a"), finished()], tmp_path) == "//a is up to date (0.08 s)\n"
    many = [started, built("//a:b"), built("//a:c"), finished(unchanged=3)]
    assert show(many, tmp_path) == "2 targets are up to date (0.08 s)\n"


def test_ten_thousand_hits_are_not_ten_thousand_lines(tmp_path: Path) -> None:
    hits: list[Event] = [
        ActionFinished(1.0, n, f"//a:t{n}", "Genrule", KEY, "local_hit", 0.0, 0) for n in range(10_000)
    ]
    targets: list[Event] = [built(f"//a:t{n}", f"modelbuild-out/a/{n}") for n in range(10_000)]
    shown = show([*hits, *targets, finished(local_hits=10_000, wall_s=2)], tmp_path).splitlines()
    assert len(shown) == 19 * 2 + 2
    assert shown[-2] == "and 9,981 more targets"
    assert shown[-1] == "built 10,000 targets: 0 executed, 10,000 cached, 0 failed in 2.0 s"


def test_sizes_of_files_and_trees(tmp_path: Path) -> None:
    (tmp_path / "out" / "tree").mkdir(parents=True)
    (tmp_path / "out" / "tree" / "a").write_bytes(b"x" * 1500)
    (tmp_path / "out" / "tree" / "b").write_bytes(b"x" * 500)
    (tmp_path / "out" / "file").write_bytes(b"x" * 7)
    shown = show([built("//a:b", "out/file", "out/tree", "out/gone"), finished(executed=1)], tmp_path)
    assert shown.splitlines()[:4] == [
        "//a:b",
        "  out/file (7 B)",
        "  out/tree (2.0 kB in 2 files)",
        "  out/gone",
    ]


def test_tests_and_their_verdicts(tmp_path: Path) -> None:
    events = [
        build_events.TestFinished(1.0, "//a:good_test", passed=True, summary="97 % of 90 %", cached=True),
        build_events.TestFinished(1.0, "//a:bad_test", passed=False, summary="80 % of 90 %", cached=False),
        finished(3, executed=1),
    ]
    shown = show(events, tmp_path).splitlines()
    assert shown[:2] == ["PASSED //a:good_test (cached): 97 % of 90 %", "FAILED //a:bad_test: 80 % of 90 %"]
    assert show(events, tmp_path, quiet=True) == "FAILED //a:bad_test: 80 % of 90 %\n"


def test_an_error_before_the_first_action_is_all_there_is_to_say(tmp_path: Path) -> None:
    assert show([finished(ExitCode.USAGE)], tmp_path) == ""
    assert show([finished(ExitCode.ENVIRONMENT)], tmp_path) == ""


def test_interrupted(tmp_path: Path) -> None:
    shown = show([finished(ExitCode.INTERRUPTED, wall_s=3.2)], tmp_path)
    assert shown == "interrupted after 3.2 s; what was finished is kept\n"


def test_messages_and_reasons(tmp_path: Path) -> None:
    events = [
        Message(0.1, "warning", "the cache is nearly full"),
        Message(0.1, "info", "a note"),
        ActionStarted(0.1, 0, "//a:b", "Genrule", "", "x", None),
        ActionFinished(0.2, 0, "//a:b", "Genrule", KEY, "executed", 0.1, 0, "inputs: x.txt"),
    ]
    assert show(events, tmp_path).splitlines() == [
        "warning: the cache is nearly full",
        "[1/1] Genrule //a:b 0.10 s",
    ]
    assert show(events, tmp_path, verbose=True).splitlines() == [
        "warning: the cache is nearly full",
        "info: a note",
        "[1/1] Genrule //a:b 0.10 s (inputs: x.txt)",
    ]
    assert show(events, tmp_path, quiet=True) == "warning: the cache is nearly full\n"


def test_error_with_its_own_log_is_not_shown_twice(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("boom\n")
    error = f"error: `//a:b` failed\n   = boom\n   = whole log: {log}\nhint: look"
    event = ActionFinished(2.0, 0, "//a:b", "Genrule", KEY, "failed", 1.5, 0, error=error, log=str(log))
    assert show([event], tmp_path) == error.replace("failed\n", "failed (after 1.5 s)\n") + "\n"


def in_terminal(program: str, columns: int = 100) -> str:
    """What a program writes to a terminal of its own."""
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "24"},
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([control], [], [], 0.1)[0]:
            try:
                data = os.read(control, 65536)
            except OSError:
                break  # The other end is closed: the program is over.
            if not data:
                break
            shown += data
    os.close(control)
    assert process.wait() == 0, shown.decode()
    return shown.decode()


REPLAY = f"""
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("replay_events", {str(Path(__file__).with_name("replay_events.py"))!r})
replay = importlib.util.module_from_spec(spec); sys.modules["replay_events"] = replay; spec.loader.exec_module(replay)
import os
from modelbuild.cli import plain_console
from modelbuild.cli.console import ConsoleOptions
from modelbuild.cli.terminal import Environment, Terminal
def show(events, speed):
    replay.replay(events, Terminal(Environment.read(os.environ)), pathlib.Path("/"), ConsoleOptions(), speed)
"""


def test_live_display() -> None:
    shown = in_terminal(REPLAY + "show(replay.made_up(fail=True), 4)", 140)
    assert "━" in shown
    assert "/400 steps" in shown
    assert "tokens/s" in shown
    assert " cached" in shown
    assert "the tool exited with 1" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is given back
    assert "0 of 1 target built" in shown


def test_live_display_of_a_short_build_never_imports_rich() -> None:
    program = REPLAY + (
        "show([e for e in replay.made_up() if isinstance(e, (replay.BuildStarted, replay.TargetFinished, "
        "replay.BuildFinished))], 1e9)\nprint('rich' in sys.modules)"
    )
    assert in_terminal(program).splitlines()[-1] == "False"


@pytest.mark.parametrize("columns", [30, 60])
def test_live_display_on_a_narrow_terminal(columns: int) -> None:
    assert "0 failed" in in_terminal(REPLAY + "show(replay.made_up(), 6)", columns)
