from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild.cli.completion import SCRIPTS
from modelbuild.cli.main import main

COMPLETE = """
source "$1"
shift
COMP_LINE="$1"
COMP_POINT=${#COMP_LINE}
compopt() { printf 'compopt %s %s\\n' "$@"; }
_modelbuild
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    assert main(["init", str(root), "--quiet"]) == 0
    (root / "lib").mkdir()
    (root / "lib" / "BUILD.models").write_text("filegroup(name = 'a')\nfilegroup(\n    name = \"ab\",\n)\n")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program = bin_ / "modelbuild"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m modelbuild.cli "$@"\n')
    program.chmod(0o755)
    return root


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("modelbuild buil", ["build"]),
        ("modelbuild build //lib:a", ["a", "ab", "all"]),
        ("modelbuild build //li", ["compopt -o nospace", "//lib:"]),
        ("modelbuild build -k -//lib:ab", ["ab"]),
        ("modelbuild test --qu", ["--quiet"]),
        ("modelbuild completion ", ["bash", "fish", "zsh"]),
        ("modelbuild help rule filegr", ["filegroup"]),
        ("modelbuild nothing ", [""]),
    ],
)
def test_bash(line: str, replies: list[str], workspace: Path) -> None:
    script = workspace.parent / "completion.bash"
    script.write_text(SCRIPTS["bash"])
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", str(script), line],
        capture_output=True,
        text=True,
        check=True,
        cwd=workspace,
        env={"PATH": f"{workspace.parent / 'bin'}:/usr/bin:/bin"},
    )
    assert done.stdout.splitlines() == replies
    assert done.stderr == ""


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_script_is_valid(shell: str, check: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    done = subprocess.run([shell, check, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_survives_a_broken_build_file(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "lib" / "BUILD.models").write_text("filegroup(name = 'x'\n(((")
    monkeypatch.chdir(workspace)
    assert main(["complete", "--", "build", "//lib:x"]) == 0
    assert capsys.readouterr().out == "//lib:x\n"
    (workspace / "modelbuild.toml").write_text("[[[")
    assert main(["complete", "--", "build", "//lib:x"]) == 0
    assert capsys.readouterr().out == ""
