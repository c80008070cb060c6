from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild import __version__
from modelbuild.cli import version
from modelbuild.cli.main import COMMANDS, EXIT_BUG, command_module, main
from modelbuild.errors import EnvironmentFailure, Location
from modelbuild.testing import assert_golden

HEAVY = ("pydantic", "pydantic_core", "rich", "networkx", "numpy", "torch", "asyncio", "grpc")


def run(*words: str, cwd: Path | None = None, **options: str) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "modelbuild.cli", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env={"PATH": "/usr/bin:/bin", **options},
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["buidl", "//..."], "error: there is no command `buidl`\nhint: did you mean `build`?\n"),
        (["zzz"], "error: there is no command `zzz`\nhint: `modelbuild help` lists the commands\n"),
        (
            ["--keep-going", "build"],
            (
                "error: the flag `--keep-going` stands before the command\n"
                "hint: flags follow the command: `modelbuild build --keep-going //...`\n"
            ),
        ),
        (
            ["version", "now"],
            (
                "error: `modelbuild version` takes no argument `now`\n"
                "hint: `modelbuild help version` shows how it is used\n"
            ),
        ),
        (
            ["completion"],
            "error: `shell` is missing\nhint: `modelbuild help completion` shows how it is used\n",
        ),
        (["help", "rule", "genrul"], "error: there is no rule `genrul`\nhint: did you mean `genrule`?\n"),
        (
            ["help", "genrule"],
            "error: `genrule` is a rule, not a command\nhint: `modelbuild help rule genrule`\n",
        ),
        (["help", "biuld"], "error: there is no command `biuld`\nhint: did you mean `build`?\n"),
        (
            ["info", "vesion"],
            "error: there is no `vesion` in `modelbuild info`\nhint: did you mean `version`?\n",
        ),
    ],
)
def test_usage_errors(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", error)


def test_errors_are_coloured_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "nothing", "--color", "always"]) == 2
    assert capsys.readouterr().err.startswith("\x1b[1;31merror:\x1b[0m")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"modelbuild {__version__}\n"


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert_golden("cli/help.txt", capsys.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", command]) == 0
    shown = capsys.readouterr().out
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out == shown
    assert shown.startswith(f"usage: modelbuild {command}")
    assert COMMANDS[command] == command_module(command).SUMMARY


def test_help_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "build"]) == 0
    assert_golden("cli/help-build.txt", capsys.readouterr().out)


def test_modelbuild_error_keeps_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise EnvironmentFailure("the disk is full", location=Location("cache", 3), hint="make room")

    monkeypatch.setattr(version, "run", fail)
    assert main(["version"]) == 4
    assert capsys.readouterr().err == "error: the disk is full\n  --> cache:3\nhint: make room\n"


def test_bug_is_reported_short(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> int:
        raise KeyError("lost")

    monkeypatch.setattr(version, "run", fail)
    assert main(["version"]) == EXIT_BUG
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: this is a bug in modelbuild: KeyError: 'lost'"
    report = Path(lines[1].removeprefix("   = the traceback is in "))
    assert "in fail" in report.read_text()
    report.unlink()
    assert main(["version", "-v"]) == EXIT_BUG
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    Path(shown.strip().rpartition(" ")[2]).unlink()


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> int:
        signal.raise_signal(signal.SIGTERM)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(version, "run", interrupt)
    assert main(["version"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupt_exits_with_130_wherever_it_comes() -> None:
    code = (
        "import sys, modelbuild.cli.main as m; m._dispatch = lambda *_: exec('raise KeyboardInterrupt');"
        "sys.argv = ['modelbuild', 'version']; sys.exit(m.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("redirection", "exit_code"),
    [
        ("version >&-", 0),
        ("version >&- 2>&-", 0),
        ("nope 2>&-", 2),
        ("version > /dev/full", 4),
        ("nope 2> /dev/full", 4),
    ],
)
def test_streams_that_are_closed_or_full(redirection: str, exit_code: int) -> None:
    command = f"{sys.executable} -m modelbuild.cli {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == exit_code
    assert "Traceback" not in done.stderr


def test_broken_pipe_is_silent() -> None:
    program = f"{sys.executable} -m modelbuild.cli completion bash"
    command = f"(sleep 0.5; {program}) | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "141\n"
    assert done.stderr == ""


def test_outside_of_a_workspace(tmp_path: Path) -> None:
    done = run("build", "//...", cwd=tmp_path)
    assert done.returncode == 2
    assert "is in no workspace" in done.stderr
    assert "hint: `modelbuild init DIR` makes a workspace" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "module", ["modelbuild.cli.main", "modelbuild.cli.command_line", "modelbuild.cli.build"]
)
def test_top_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
